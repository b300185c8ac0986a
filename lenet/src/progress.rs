//! Shows how training goes: a bar on a terminal, plain lines in a pipe.
//!
//! Both print the tutorial's lines, ready to be parsed:
//!
//! ```text
//!  Iter 0 Objective 6.67137 Cost 2.39042 Test Accuracy 0.0892 Training Accuracy 0.09062
//! Final Test Accuracy: 0.9852
//! ```
//!
//! Numbers are printed as Python prints a `numpy.float32` ([`PythonFloat`]).

use std::fmt;
use std::io::{self, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::error::{Error, Result};

/// What was measured at one iteration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measurement {
    /// The iteration, counted from 0.
    pub iter: u64,
    /// The objective of the iteration's mini batch, regularizers included, before its update.
    pub objective: f32,
    /// The cost of the mini batch alone.
    pub cost: f32,
    /// Share of the test images predicted right, 0 to 1.
    pub test_accuracy: f32,
    /// Share of training images predicted right, 0 to 1, where it was computed.
    pub training_accuracy: Option<f32>,
}

impl fmt::Display for Measurement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [objective, cost, test] = [self.objective, self.cost, self.test_accuracy].map(PythonFloat);
        write!(
            f,
            " Iter {} Objective {objective} Cost {cost} Test Accuracy {test}",
            self.iter
        )?;
        match self.training_accuracy {
            Some(accuracy) => write!(f, " Training Accuracy {}", PythonFloat(accuracy)),
            None => Ok(()),
        }
    }
}

/// Displays a number as Python's `str(numpy.float32(x))` does: the shortest digits that read back as the same `f32`,
/// always with a point or an exponent; with an exponent below 1e-4 and from 1e16 on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PythonFloat(pub f32);

impl fmt::Display for PythonFloat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.0;
        if value.is_nan() {
            return f.write_str("nan");
        }
        if value.is_infinite() {
            return f.write_str(if value > 0.0 { "inf" } else { "-inf" });
        }
        // numpy compares beyond single precision: the f32 next to 1e-4 lies below it.
        let size = f64::from(value).abs();
        if size == 0.0 || (1e-4..1e16).contains(&size) {
            let digits = value.to_string();
            let point = if digits.contains('.') { "" } else { ".0" };
            return write!(f, "{digits}{point}");
        }
        let scientific = format!("{value:e}");
        let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
        let (sign, exponent) = exponent
            .strip_prefix('-')
            .map_or(('+', exponent), |exponent| ('-', exponent));
        write!(f, "{digits}e{sign}{exponent:0>2}")
    }
}

/// Told how training goes, shows it.
///
/// # Errors
/// Every method gives [`Error::Progress`] when it cannot write, as when a pipe's reader has gone.
pub trait Progress {
    /// Training begins, or goes on after `done` steps, and will take `iterations` steps in all.
    fn start(&mut self, done: u64, iterations: u64) -> Result<()>;

    /// The step `iter`, counted from 0, is done. Called every step.
    fn step(&mut self, iter: u64) -> Result<()>;

    /// It was time to measure.
    fn measured(&mut self, measurement: &Measurement) -> Result<()>;

    /// Training is over; `test_accuracy` is the share of test images that the network now predicts right.
    fn finish(&mut self, test_accuracy: f32) -> Result<()>;
}

/// The renderer for the program's standard output: a [`Bar`] when both standard output and standard error are terminals,
/// else [`Lines`].
pub fn for_standard_output() -> Box<dyn Progress> {
    if io::stdout().is_terminal() && io::stderr().is_terminal() {
        Box::new(Bar::new(io::stdout(), ProgressDrawTarget::stderr()))
    } else {
        Box::new(Lines::new(io::stdout()))
    }
}

/// Writes the tutorial's lines, each at once.
#[derive(Debug)]
pub struct Lines<W> {
    output: W,
}

impl<W: Write> Lines<W> {
    /// Writes to `output`.
    pub fn new(output: W) -> Self {
        Self { output }
    }

    fn line(&mut self, line: impl fmt::Display) -> Result<()> {
        writeln!(self.output, "{line}")
            .and_then(|()| self.output.flush())
            .map_err(Error::Progress)
    }
}

impl<W: Write> Progress for Lines<W> {
    fn start(&mut self, _done: u64, _iterations: u64) -> Result<()> {
        Ok(())
    }

    fn step(&mut self, _iter: u64) -> Result<()> {
        Ok(())
    }

    fn measured(&mut self, measurement: &Measurement) -> Result<()> {
        self.line(measurement)
    }

    fn finish(&mut self, test_accuracy: f32) -> Result<()> {
        self.line(format_args!("Final Test Accuracy: {}", PythonFloat(test_accuracy)))
    }
}

const BAR_TEMPLATE: &str = "{bar:40} {pos}/{len} iterations, {per_sec}, {eta} left";

/// A bar with speed and remaining time; the tutorial's lines scroll by above it.
#[derive(Debug)]
pub struct Bar<W> {
    lines: Lines<W>,
    bar: ProgressBar,
}

impl<W: Write> Bar<W> {
    /// Writes lines to `output` and draws the bar on `target`.
    pub fn new(output: W, target: ProgressDrawTarget) -> Self {
        Self {
            lines: Lines::new(output),
            bar: ProgressBar::with_draw_target(None, target),
        }
    }
}

impl<W: Write> Progress for Bar<W> {
    fn start(&mut self, done: u64, iterations: u64) -> Result<()> {
        let style = ProgressStyle::with_template(BAR_TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
        self.bar.set_style(style);
        self.bar.set_length(iterations);
        self.bar.reset();
        self.bar.set_position(done);
        self.bar.reset_eta();
        Ok(())
    }

    fn step(&mut self, iter: u64) -> Result<()> {
        self.bar.set_position(iter + 1);
        Ok(())
    }

    fn measured(&mut self, measurement: &Measurement) -> Result<()> {
        self.bar.suspend(|| self.lines.measured(measurement))
    }

    fn finish(&mut self, test_accuracy: f32) -> Result<()> {
        self.bar.finish_and_clear();
        self.lines.finish(test_accuracy)
    }
}

impl<W> Drop for Bar<W> {
    /// Training that ends early leaves no bar behind.
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measurement(training_accuracy: Option<f32>) -> Measurement {
        Measurement {
            iter: 0,
            objective: 6.67137,
            cost: 2.39042,
            test_accuracy: 0.0892,
            training_accuracy,
        }
    }

    fn show(progress: &mut dyn Progress) {
        progress.start(0, 2000).unwrap();
        progress.step(0).unwrap();
        progress.measured(&measurement(Some(0.09062))).unwrap();
        progress
            .measured(&Measurement {
                iter: 1000,
                ..measurement(None)
            })
            .unwrap();
        progress.finish(1.0).unwrap();
    }

    const SHOWN: &str = " Iter 0 Objective 6.67137 Cost 2.39042 Test Accuracy 0.0892 Training Accuracy 0.09062\n \
                          Iter 1000 Objective 6.67137 Cost 2.39042 Test Accuracy 0.0892\n\
                         Final Test Accuracy: 1.0\n";

    #[test]
    fn a_pipe_gets_the_tutorials_lines() {
        let mut output = Vec::new();
        show(&mut Lines::new(&mut output));
        assert_eq!(String::from_utf8(output).unwrap(), SHOWN);
    }

    #[test]
    fn a_terminal_gets_the_same_lines_above_its_bar() {
        let mut output = Vec::new();
        let mut bar = Bar::new(&mut output, ProgressDrawTarget::hidden());
        show(&mut bar);
        assert_eq!((bar.bar.length(), bar.bar.is_finished()), (Some(2000), true));
        drop(bar);
        assert_eq!(String::from_utf8(output).unwrap(), SHOWN);
    }

    #[test]
    fn the_bars_template_is_valid() {
        assert!(ProgressStyle::with_template(BAR_TEMPLATE).is_ok());
    }

    #[test]
    fn a_reader_that_has_gone_is_an_error() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        assert!(matches!(Lines::new(Closed).finish(0.5), Err(Error::Progress(_))));
    }

    #[test]
    fn numbers_look_as_python_prints_them() {
        let cases: [(f32, &str); 17] = [
            (6.67137, "6.67137"),
            (0.0892, "0.0892"),
            (0.1, "0.1"),
            (1.0, "1.0"),
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (-2.5, "-2.5"),
            (123_456_789.0, "123456790.0"),
            (16_777_216.0, "16777216.0"),
            (1e16, "1e+16"),
            (3.402_823_5e38, "3.4028235e+38"),
            (0.0002, "0.0002"),
            (0.0001, "1e-04"),
            (1.5e-5, "1.5e-05"),
            (1e-45, "1e-45"),
            (f32::NAN, "nan"),
            (f32::NEG_INFINITY, "-inf"),
        ];
        for (number, expected) in cases {
            assert_eq!(PythonFloat(number).to_string(), expected);
        }
    }
}
