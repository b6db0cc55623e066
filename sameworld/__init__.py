"""The library that the steps stand on; it knows nothing of them."""
