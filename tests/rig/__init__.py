"""The rig: an emulated machine whose KVM boots real BoxLite guests, and the image that those guests run."""
