//! The FPGA of a camera in software.
