//! Generates the gRPC code from `proto/` with a compiler written in Rust: no protoc on the machine is needed.

use std::error::Error;
use std::path::{Path, PathBuf};

/// The public schema; also what reflection serves.
const PUBLIC: [&str; 4] =
    ["altair/v1/common.proto", "altair/v1/broker.proto", "altair/v1/admin.proto", "altair/v1/group.proto"];
/// Between brokers; never part of reflection.
const INTERNAL: [&str; 1] = ["altair/internal/v1/query.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=proto");
    if std::env::var_os("CARGO_FEATURE_GRPC").is_none() {
        return Ok(());
    }
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let public = protox::Compiler::new(["proto"])?
        .include_imports(true)
        .include_source_info(true)
        .open_files(PUBLIC)?
        .file_descriptor_set();
    std::fs::write(out.join("altair.v1.bin"), encode_without_comments(public.clone()))?;
    generate(public, &out)?;
    generate(protox::compile(INTERNAL, ["proto"])?, &out)
}

fn generate(files: prost_types::FileDescriptorSet, out: &Path) -> Result<(), Box<dyn Error>> {
    tonic_prost_build::configure()
        // Record batches stay slices of the received message instead of being copied out of it.
        .bytes(".")
        // Iteration order must not differ between runs.
        .btree_map(".")
        .out_dir(out)
        .compile_fds(files)?;
    Ok(())
}

/// Comments are half of the descriptor set and no client of reflection shows them.
fn encode_without_comments(mut files: prost_types::FileDescriptorSet) -> Vec<u8> {
    for file in &mut files.file {
        file.source_code_info = None;
    }
    prost::Message::encode_to_vec(&files)
}
