"""Evidence: each benchmark compares the product with something that is known otherwise, and says what it found."""
