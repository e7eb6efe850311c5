"""How good an image is: figures against a truth."""
