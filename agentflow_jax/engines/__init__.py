"""Who answers a prompt: rules, the local sampler, and retries around them."""
