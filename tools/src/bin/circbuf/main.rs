//! `circbuf`: the camera, its driver and the tools around them.

fn main() {}
