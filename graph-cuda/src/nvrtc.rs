//! The compiler: NVRTC, which needs no GPU.

use std::ffi::{CString, c_char};

use cudarc::nvrtc::{result, sys};
use graph_core::{Error, Result};

use crate::driver::{Capability, Compiler};

/// Compiles for one architecture.
pub struct Nvrtc {
    capability: Capability,
    version: (i32, i32),
}

impl Nvrtc {
    /// A compiler for devices of this capability.
    ///
    /// # Errors
    /// `Unavailable` if the library is not there.
    pub fn new(capability: Capability) -> Result<Self> {
        // A library outside of the loader's path, by its full name.
        if let Some(path) = std::env::var_os("GRAPH_NVRTC").filter(|path| !path.is_empty()) {
            // SAFETY: NVRTC's initialization has no conditions.
            let library = unsafe { libloading::Library::new(&path) }.map_err(|error| {
                Error::unavailable(format!(
                    "GRAPH_NVRTC names '{}', which cannot be loaded",
                    path.display()
                ))
                .caused_by(error)
            })?;
            // Loaded for good, so that it is found by its short name.
            std::mem::forget(library);
        }
        // SAFETY: only looks for the library.
        if !unsafe { sys::is_culib_present() } {
            return Err(Error::unavailable("NVRTC, CUDA's run-time compiler, is not there")
                .hint("install the CUDA toolkit's NVRTC (libnvrtc.so), or name it in GRAPH_NVRTC"));
        }
        let (mut major, mut minor) = (0, 0);
        // SAFETY: both addresses are valid.
        unsafe { sys::nvrtcVersion(&mut major, &mut minor) }
            .result()
            .map_err(failed)?;
        Ok(Self {
            capability,
            version: (major, minor),
        })
    }

    fn options(&self) -> [String; 2] {
        [
            format!("-arch={}", self.capability.architecture()),
            "--std=c++17".to_owned(),
        ]
    }
}

impl Compiler for Nvrtc {
    fn identity(&self) -> String {
        format!(
            "nvrtc {}.{} {}",
            self.version.0,
            self.version.1,
            self.options().join(" ")
        )
    }

    fn compile(&self, name: &str, text: &str) -> Result<Vec<u8>> {
        let nul = |_| Error::internal(format!("the text of {name} holds a zero byte"));
        let (source, title) = (CString::new(text).map_err(nul)?, CString::new(name).map_err(nul)?);
        let program = Program(result::create_program(&source, Some(&title)).map_err(failed)?);
        // SAFETY: the program was just made.
        unsafe { result::compile_program(program.0, &self.options()) }.map_err(|error| {
            Error::internal(format!(
                "{name} does not compile for {}",
                self.capability.architecture()
            ))
            .got(program.log())
            .caused_by(error)
        })?;
        let mut size = 0;
        // SAFETY: the program is compiled.
        unsafe { sys::nvrtcGetCUBINSize(program.0, &mut size) }
            .result()
            .map_err(failed)?;
        let mut code = vec![0u8; size];
        // SAFETY: the buffer has the size that was asked for.
        unsafe { sys::nvrtcGetCUBIN(program.0, code.as_mut_ptr().cast()) }
            .result()
            .map_err(failed)?;
        Ok(code)
    }
}

struct Program(sys::nvrtcProgram);

impl Program {
    /// What the compiler said.
    fn log(&self) -> String {
        // SAFETY: the program lives.
        let log: Vec<c_char> = unsafe { result::get_program_log(self.0) }.unwrap_or_default();
        let bytes: Vec<u8> = log
            .iter()
            .map(|&byte| byte as u8)
            .take_while(|&byte| byte != 0)
            .collect();
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: the program lives, and is used no more.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}

fn failed(error: result::NvrtcError) -> Error {
    Error::internal("NVRTC failed").caused_by(error)
}
