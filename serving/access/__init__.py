"""Who may call what, and how often: keys, scopes, rates."""
