"""Networks that model.py offers: airbench for small images, and torchvision's classifiers for images
of any size (any_size.py) with their trained weights (pretrained.py)."""
