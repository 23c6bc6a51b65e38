//! A userspace driver for the circular frame buffer of a camera.
