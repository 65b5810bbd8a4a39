"""What model.py needs to offer torchvision's classifiers: networks that take images of any size
(any_size.py), and their trained weights (pretrained.py)."""
