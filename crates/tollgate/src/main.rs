//! The `tollgate` binary: exit codes, nothing else.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // Before anything can open a connection: libraries take the process's provider. Only a second call fails.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    tollgate::cli::run()
}
