//! The `herald` binary: everything is in `herald::cli`.

use std::process::ExitCode;

/// Takes a fifth off the CPU time of a write: most of what a call allocates is
/// small and freed on another thread, which the system's allocator is slow at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    herald::cli::main()
}
