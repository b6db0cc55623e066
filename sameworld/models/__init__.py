"""The bundle, its ranking, and the training of its boosters."""
