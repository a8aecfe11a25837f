//! Sets `cfg(loom)` for this package alone. As a flag for all packages it would change those that loom itself needs, and
//! a run without it would prove nothing.
fn main() {
    println!("cargo::rustc-cfg=loom");
    println!("cargo::rerun-if-changed=build.rs");
}
