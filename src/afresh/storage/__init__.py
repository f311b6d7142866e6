"""Files and folders that are there as a whole or not at all, and the secret that signs them."""
