//! The texts of kernels.

/// What every kernel source begins with.
pub const PRELUDE: &str = include_str!("device_code/prelude.cuh");

/// The text of one or several kernels, which begins where the prelude ends.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// Its file name, for messages.
    pub name: &'static str,
    /// The text.
    pub text: &'static str,
}

/// The source in a file beside this one: `source!("conv2d.cu")`.
#[macro_export]
macro_rules! source {
    ($file:literal) => {
        $crate::Source {
            name: $file,
            text: include_str!($file),
        }
    };
}

impl Source {
    /// The whole text to be compiled: the prelude, what is defined, and the source.
    pub fn with(&self, defines: &[(&str, &str)]) -> String {
        whole(self.name, self.text, defines)
    }
}

/// The whole text of a source called `name`.
pub(crate) fn whole(name: &str, text: &str, defines: &[(&str, &str)]) -> String {
    let mut whole = String::with_capacity(PRELUDE.len() + text.len() + 64);
    whole.push_str(PRELUDE);
    for (macro_name, value) in defines {
        whole.push_str("#define ");
        whole.push_str(macro_name);
        whole.push(' ');
        whole.push_str(value);
        whole.push('\n');
    }
    // Messages name the source's own lines.
    whole.push_str(&format!("#line 1 \"{name}\"\n"));
    whole.push_str(text);
    whole
}
