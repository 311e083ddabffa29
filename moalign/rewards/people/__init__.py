"""What models of many users share: features of texts, one mixture per user, agreement, and the batched training."""
