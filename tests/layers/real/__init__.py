"""Networks of timm, torchvision and transformers: how each is cut, and that it freezes right."""
