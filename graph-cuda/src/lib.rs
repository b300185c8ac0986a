//! A CUDA device for the engine. Nothing is here yet: the engine runs on the CPU.
//!
//! What it will hold is decided by what the core leaves open: kernels register under
//! [`DeviceKind::Cuda`](graph_core::op::kernel::DeviceKind) and name the inputs and outputs that stay on the host, the memory
//! plan hands out offsets in an arena without touching what is there, and a plan is a straight line of steps that can be
//! captured.
