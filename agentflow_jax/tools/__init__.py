"""Tools the executor may call; they meet the agent through core.tool."""
