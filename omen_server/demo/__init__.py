"""`omen demo`: seven acts on two real servers, each showing that a promise holds. programme.py lists them."""
