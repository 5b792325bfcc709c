"""The page that a technician looks at on the cart: studies, their state, pictures and numbers."""
