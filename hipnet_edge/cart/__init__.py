"""The imaging cart: radiographs arrive, results go back, and nothing acknowledged is lost."""
