"""Images and video: backbones, transforms, decoding, a member's forward pass."""
