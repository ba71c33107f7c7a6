//! `cargo xtask lab vm`: the lab on other kernels.
//!
//! Debian's kernel packages are booted in an emulated machine whose whole file system is one archive in
//! memory: the lab, the programs that it calls, and the kernel's modules. Nothing is installed, and
//! nothing needs root.
//!
//! Reading order: [`run()`], then what it puts together: [`kernel`], [`image`], [`archive`], [`machine`].

mod archive;
mod image;
mod kernel;
mod machine;
mod run;

pub(crate) use run::run;
