"""Files and folders that are there as a whole or not at all, their locks, and the secret that signs them."""
