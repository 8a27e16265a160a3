"""Who answers a prompt: rules, the local sampler, APIs, guards around them."""
