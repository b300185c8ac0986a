//! Libraries of which a few functions are called: they are loaded when they are first needed, and what is missing is an error.

use std::ffi::OsString;

use graph_core::{DType, Error, Result};
use libloading::Library;

/// Loads a library for good: the one that the environment variable names by its path, or else the first of these names that
/// the loader knows.
///
/// # Errors
/// `Unavailable` if there is none.
pub(crate) fn load(title: &str, variable: &str, names: &[&str]) -> Result<&'static Library> {
    let told = std::env::var_os(variable).filter(|path| !path.is_empty());
    let candidates: Vec<OsString> = match &told {
        Some(path) => vec![path.clone()],
        None => names.iter().map(OsString::from).collect(),
    };
    let mut last = None;
    for candidate in candidates {
        // SAFETY: NVIDIA's libraries have no conditions on when they are loaded.
        match unsafe { Library::new(&candidate) } {
            // It is used until the process ends; to unload it while a device is used would be no gain.
            Ok(library) => return Ok(Box::leak(Box::new(library))),
            Err(error) => last = Some(error),
        }
    }
    let message = match told {
        Some(path) => format!("{variable} names '{}', which cannot be loaded", path.display()),
        None => format!("{title} is not there ({})", names.join(", ")),
    };
    let error = Error::unavailable(message).hint(format!("install {title}, or name its file in {variable}"));
    Err(match last {
        Some(cause) => error.caused_by(cause),
        None => error,
    })
}

/// A function of a library.
///
/// # Errors
/// `FailedPrecondition` if the library, which is another version then, has none of this name.
///
/// # Safety
/// `F` is the function's type.
pub(crate) unsafe fn function<F: Copy>(library: &'static Library, title: &str, name: &str) -> Result<F> {
    // SAFETY: the caller's promise.
    let symbol = unsafe { library.get::<F>(name.as_bytes()) };
    symbol.map(|symbol| *symbol).map_err(|error| {
        Error::failed_precondition(format!("{title} has no function {name}"))
            .hint(format!("install a version of {title} that has it"))
            .caused_by(error)
    })
}

/// A factor of a result of this dtype, as NVIDIA's libraries read it: a `double` for `Float64`, else a `float` in the first bytes.
pub(crate) fn factor(dtype: DType, value: f64) -> u64 {
    if dtype == DType::Float64 {
        return value.to_bits();
    }
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&(value as f32).to_ne_bytes());
    u64::from_ne_bytes(bytes)
}

/// A struct of functions of a library, each of which returns a status, with `load` that finds them all.
macro_rules! functions {
    ($title:literal: $(#[$doc:meta])* struct $name:ident { $($field:ident = $symbol:literal($($argument:ty),*);)* }) => {
        $(#[$doc])*
        struct $name {
            $($field: unsafe extern "C" fn($($argument),*) -> i32,)*
        }

        impl $name {
            fn load(library: &'static libloading::Library) -> graph_core::Result<Self> {
                Ok(Self {
                    // SAFETY: the types are those of the library's headers.
                    $($field: unsafe { $crate::library::function(library, $title, $symbol)? },)*
                })
            }
        }
    };
}
pub(crate) use functions;
