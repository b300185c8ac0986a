//! The command line of the `lenet` program.
//!
//! `lenet` alone trains, as the tutorial's `main.py` does; `lenet train` says it in full; `lenet eval` tests what was trained;
//! `lenet export` writes the training graph. All but `eval` take the same [`Options`]. What can be judged from the command line alone is judged here,
//! with the option's name in the error; whether a mini batch fits its dataset only
//! [`DataSet::check_batch_size`](crate::dataset::DataSet::check_batch_size) can tell.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::builder::PossibleValue;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use graph_ops::gpu::{ChosenDevices, DeviceChoice, DeviceOptions};
use graph_ops::train::MixedPrecision;

use crate::checkpoints::CheckpointOptions;
use crate::global_definitions::{self as defaults, Definitions, OptimizerName};

/// What the program is asked to do.
#[derive(Debug, Clone, PartialEq, Subcommand)]
pub enum Command {
    /// Train the network, print accuracies and write TensorBoard summaries (what `lenet` alone does)
    Train(Train),
    /// Measure the accuracy of a trained network on the test images
    Eval(Eval),
    /// Write the training graph as a TensorFlow GraphDef, without training
    Export(Export),
}

/// Options of `lenet train`.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct Train {
    /// What is trained, and how.
    #[command(flatten)]
    pub options: Options,

    #[command(flatten)]
    checkpoints: CheckpointArguments,

    /// Where it computes.
    #[command(flatten)]
    pub device: Device,
}

/// [`CheckpointOptions`] as options.
#[derive(Debug, Clone, PartialEq, Args)]
#[command(next_help_heading = "Checkpoints")]
struct CheckpointArguments {
    /// Folder to save the run in, as TensorFlow checkpoints DIR/lenet.ckpt-N; the last five stay
    #[arg(long, value_name = "DIR")]
    checkpoint_dir: Option<PathBuf>,

    /// Save every N iterations, and at the end
    #[arg(
        long, value_name = "N", default_value_t = 1_000, requires = "checkpoint_dir",
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    save_every: u64,

    /// Go on from the latest checkpoint in DIR, as if the run had never stopped; if there is none, begin anew and say so
    #[arg(long, requires = "checkpoint_dir")]
    resume: bool,
}

/// Where a program computes.
#[derive(Debug, Clone, Copy, PartialEq, Args)]
pub struct Device {
    /// Where to compute: auto (the first GPU, else the CPU), cpu, or gpu:N
    #[arg(long, value_name = "DEVICE", default_value_t = DeviceChoice::Auto)]
    device: DeviceChoice,

    /// On a GPU, multiply matrices in TensorFloat-32: faster, with 10 bits of fraction
    #[arg(long)]
    tf32: bool,
}

impl Device {
    /// Opens the device.
    ///
    /// # Errors
    /// A GPU that is asked for and cannot be used.
    pub fn open(&self) -> crate::Result<ChosenDevices> {
        let options = DeviceOptions {
            tf32: self.tf32,
            ..DeviceOptions::default()
        };
        Ok(self.device.open(&options)?)
    }
}

impl Train {
    /// Where and how often the run is saved, if it is.
    pub fn checkpoints(&self) -> Option<CheckpointOptions> {
        let CheckpointArguments {
            checkpoint_dir,
            save_every,
            resume,
        } = self.checkpoints.clone();
        Some(CheckpointOptions {
            folder: checkpoint_dir?,
            save_every,
            resume,
        })
    }
}

/// Options of `lenet eval`.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct Eval {
    /// Checkpoint to test, by its prefix (DIR/lenet.ckpt-1000), or a folder for its latest; the sizes of the layers are
    /// taken from it
    #[arg(long, value_name = "PREFIX")]
    pub checkpoint: PathBuf,

    /// Print the logits of the first N test images too
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub logits: usize,

    /// What is tested on.
    #[command(flatten)]
    pub source: Source,

    /// CPU threads to compute with [default: one for each core]
    #[arg(long, value_name = "N", value_parser = at_least_one, allow_negative_numbers = true)]
    pub threads: Option<usize>,

    /// Where it computes.
    #[command(flatten)]
    pub device: Device,
}

/// The images that are learnt or tested.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct Source {
    /// Images to learn, or to test
    #[arg(long, value_name = "NAME", value_enum, default_value_t = DatasetName::Mnist)]
    pub dataset: DatasetName,

    /// Folder of the dataset's four files [default: data, for Fashion-MNIST data/fashion]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// Options of `lenet export`.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct Export {
    /// File to write the GraphDef to
    #[arg(long, value_name = "FILE")]
    pub graph_def: PathBuf,

    /// Write protobuf's text format instead of the binary one
    #[arg(long)]
    pub text: bool,

    /// What the graph is built from.
    #[command(flatten)]
    pub options: Options,
}

/// Options of a training run.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct Options {
    /// Iterations to train, one mini batch each
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub iter: u64,

    /// Images in a mini batch
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = at_least_one, allow_negative_numbers = true)]
    pub mini_batch_size: usize,

    /// Measure accuracy and write summaries every N iterations
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub update_after_iter: u64,

    /// Do not measure the accuracy on training images
    #[arg(long)]
    pub no_training_accuracy: bool,

    /// Do not write TensorBoard summaries
    #[arg(long)]
    pub no_summarize: bool,

    /// The images.
    #[command(flatten)]
    pub source: Source,

    /// Folder that TensorBoard reads
    #[arg(long, value_name = "DIR", default_value = "tensorboard")]
    pub logdir: PathBuf,

    /// Seed of initial values, dropout and the order of the images
    #[arg(
        long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64)
    )]
    pub seed: u64,

    /// CPU threads to compute with [default: one for each core]
    #[arg(long, value_name = "N", value_parser = at_least_one, allow_negative_numbers = true)]
    pub threads: Option<usize>,

    #[command(flatten)]
    definitions: DefinitionOptions,
}

/// [`Definitions`] as options.
#[derive(Debug, Clone, Copy, PartialEq, Args)]
#[command(next_help_heading = "Network and optimizer")]
struct DefinitionOptions {
    /// Optimizer
    #[arg(long, value_name = "NAME", value_enum, default_value_t = defaults::OPTIMIZER)]
    optimizer: OptimizerName,

    /// Learning rate
    #[arg(
        long, value_name = "X", default_value_t = defaults::LR,
        value_parser = not_negative, allow_negative_numbers = true
    )]
    learning_rate: f32,

    /// Probability to keep an activity in the dropout layers while training, above 0 and at most 1
    #[arg(
        long, value_name = "P", default_value_t = defaults::DROPOUT_PROBABILITY,
        value_parser = keep_probability, allow_negative_numbers = true
    )]
    dropout_probability: f32,

    /// Filters of the first convolution layer
    #[arg(
        long, value_name = "N", default_value_t = defaults::C1,
        value_parser = at_least_one, allow_negative_numbers = true
    )]
    c1: usize,

    /// Filters of the second convolution layer
    #[arg(
        long, value_name = "N", default_value_t = defaults::C2,
        value_parser = at_least_one, allow_negative_numbers = true
    )]
    c2: usize,

    /// Neurons of the first dot-product layer
    #[arg(
        long, value_name = "N", default_value_t = defaults::D1,
        value_parser = at_least_one, allow_negative_numbers = true
    )]
    d1: usize,

    /// Neurons of the second dot-product layer
    #[arg(
        long, value_name = "N", default_value_t = defaults::D2,
        value_parser = at_least_one, allow_negative_numbers = true
    )]
    d2: usize,

    /// Filter size of the first convolution layer, as 5x5 or 5
    #[arg(long, value_name = "HxW", default_value_t = FilterSize(defaults::F1))]
    f1: FilterSize,

    /// Filter size of the second convolution layer, as 3x3 or 3
    #[arg(long, value_name = "HxW", default_value_t = FilterSize(defaults::F2))]
    f2: FilterSize,

    /// Momentum of rmsprop, 0 to 1
    #[arg(
        long, value_name = "X", default_value_t = defaults::MOMENTUM,
        value_parser = zero_to_one, allow_negative_numbers = true
    )]
    momentum: f32,

    /// Decay of rmsprop's running mean of squared gradients, 0 to 1
    #[arg(
        long, value_name = "X", default_value_t = defaults::DECAY,
        value_parser = zero_to_one, allow_negative_numbers = true
    )]
    decay: f32,

    /// Coefficient of the weights' L1 norm in the objective
    #[arg(
        long, value_name = "X", default_value_t = defaults::L1_COEFF,
        value_parser = not_negative, allow_negative_numbers = true
    )]
    l1_coeff: f32,

    /// Coefficient of the weights' L2 norm in the objective
    #[arg(
        long, value_name = "X", default_value_t = defaults::WEIGHT_DECAY_COEFF,
        value_parser = not_negative, allow_negative_numbers = true
    )]
    weight_decay_coeff: f32,

    /// Train with products and convolutions in 16 bits: f16, with a loss scale that adjusts itself, or bf16
    #[arg(long, value_name = "DTYPE", value_parser = mixed_precision)]
    mixed_precision: Option<MixedPrecision>,
}

/// The datasets that the program can learn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub enum DatasetName {
    /// Handwritten digits
    Mnist,
    /// Articles of clothing
    Fashion,
}

impl Options {
    /// The values to build and train the network with.
    pub fn definitions(&self) -> Definitions {
        let given = self.definitions;
        Definitions {
            c1: given.c1,
            c2: given.c2,
            d1: given.d1,
            d2: given.d2,
            f1: given.f1.0,
            f2: given.f2.0,
            dropout_probability: given.dropout_probability,
            lr: given.learning_rate,
            weight_decay_coeff: given.weight_decay_coeff,
            l1_coeff: given.l1_coeff,
            momentum: given.momentum,
            decay: given.decay,
            optimizer: given.optimizer,
            mixed_precision: given.mixed_precision,
            ..Definitions::default()
        }
    }
}

impl Source {
    /// The folder of the dataset's files: the one given, or else `data` (for Fashion-MNIST `data/fashion`) in the
    /// current folder where that exists, or else the same in the repository that the program was built from.
    pub fn data_dir(&self) -> PathBuf {
        match &self.data_dir {
            Some(dir) => dir.clone(),
            None => self.dataset.default_dir(Path::new("")),
        }
    }
}

impl DatasetName {
    fn default_dir(self, current_dir: &Path) -> PathBuf {
        let dir = match self {
            Self::Mnist => "data",
            Self::Fashion => "data/fashion",
        };
        let here = current_dir.join(dir);
        if here.is_dir() {
            here
        } else {
            let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
            repository.unwrap_or(Path::new("")).join(dir)
        }
    }
}

impl ValueEnum for OptimizerName {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.as_str()))
    }
}

/// Height and width of a filter, written `5x5`; `5` alone is square.
#[derive(Debug, Clone, Copy, PartialEq)]
struct FilterSize((usize, usize));

impl fmt::Display for FilterSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.0.0, self.0.1)
    }
}

impl FromStr for FilterSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (height, width) = text.split_once(['x', ',']).unwrap_or((text, text));
        match (height.trim().parse(), width.trim().parse()) {
            (Ok(height), Ok(width)) if height >= 1 && width >= 1 => Ok(Self((height, width))),
            _ => Err("expected height and width, both at least 1, as in 5x5".to_owned()),
        }
    }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|&number| number >= 1)
        .ok_or_else(|| "expected a whole number, at least 1".to_owned())
}

fn number(text: &str, valid: impl Fn(f32) -> bool, expected: &str) -> Result<f32, String> {
    text.parse()
        .ok()
        .filter(|&number| valid(number))
        .ok_or_else(|| format!("expected {expected}"))
}

fn not_negative(text: &str) -> Result<f32, String> {
    number(text, |x| x.is_finite() && x >= 0.0, "a finite number, 0 or above")
}

fn zero_to_one(text: &str) -> Result<f32, String> {
    number(text, |x| (0.0..=1.0).contains(&x), "a number from 0 to 1")
}

fn mixed_precision(text: &str) -> Result<MixedPrecision, String> {
    text.parse().map_err(|_| "expected f16 or bf16".to_owned())
}

fn keep_probability(text: &str) -> Result<f32, String> {
    number(
        text,
        |x| x > 0.0 && x <= 1.0,
        "the probability to keep an activity, above 0 and at most 1",
    )
}

/// Trains a LeNet to read handwritten digits
#[derive(Debug, Parser)]
#[command(name = "lenet", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    train: Train,
}

/// Reads the program's own command line. On an error, and for `--help` and `--version`, it prints and exits.
pub fn parse() -> Command {
    try_parse_from(std::env::args_os()).unwrap_or_else(|error| error.exit())
}

/// Reads a command line; the first argument is the program's name.
///
/// # Errors
/// An unknown option, or a value outside its range; `--help` and `--version` too, as `clap` has it.
///
/// # Example
/// ```
/// use lenet::cli::{Command, try_parse_from};
///
/// let Command::Train(train) = try_parse_from(["lenet", "--iter", "100", "--optimizer", "sgd"])? else { panic!() };
/// assert_eq!(train.options.iter, 100);
/// assert_eq!(train.options.definitions().optimizer.as_str(), "sgd");
/// # Ok::<(), clap::Error>(())
/// ```
pub fn try_parse_from<A: Into<OsString> + Clone>(args: impl IntoIterator<Item = A>) -> Result<Command, clap::Error> {
    let cli = Cli::try_parse_from(args)?;
    let command = cli.command.unwrap_or(Command::Train(cli.train));
    let definitions = match &command {
        Command::Train(Train { options, .. }) | Command::Export(Export { options, .. }) => options.definitions(),
        Command::Eval(_) => return Ok(command),
    };
    match definitions.validate() {
        Ok(()) => Ok(command),
        Err(error) => Err(Cli::command().error(ErrorKind::ValueValidation, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        try_parse_from(line.split_whitespace())
    }

    fn train(line: &str) -> Train {
        match parse(line).unwrap() {
            Command::Train(train) => train,
            other => panic!("{other:?}"),
        }
    }

    fn options(line: &str) -> Options {
        train(line).options
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_subcommand_means_train() {
        assert_eq!(parse("lenet").unwrap(), parse("lenet train").unwrap());
        let line = "--iter 20 --mini-batch-size 10 --no-summarize --f1 3,5 --seed 7";
        assert_eq!(
            parse(&format!("lenet {line}")).unwrap(),
            parse(&format!("lenet train {line}")).unwrap()
        );
        assert!(parse("lenet --iter 20 train").is_err());
    }

    #[test]
    fn the_defaults_are_the_tutorials() {
        let options = options("lenet");
        assert_eq!(options.definitions(), Definitions::default());
        assert_eq!(
            (options.iter, options.mini_batch_size, options.update_after_iter),
            (10_000, 500, 1_000)
        );
        assert_eq!((options.no_training_accuracy, options.no_summarize), (false, false));
        assert_eq!((options.seed, options.threads), (1, None));
        assert_eq!(options.logdir, Path::new("tensorboard"));
    }

    #[test]
    fn every_definition_can_be_given() {
        let given = options(
            "lenet --c1 1 --c2 2 --d1 3 --d2 4 --f1 7 --f2 2x1 --dropout-probability 1 --learning-rate 0 \
             --weight-decay-coeff 0.5 --l1-coeff 0.25 --momentum 0.125 --decay 1 --optimizer rmsprop --mixed-precision f16",
        );
        let expected = Definitions {
            c1: 1,
            c2: 2,
            d1: 3,
            d2: 4,
            c: 10,
            f1: (7, 7),
            f2: (2, 1),
            dropout_probability: 1.0,
            lr: 0.0,
            weight_decay_coeff: 0.5,
            l1_coeff: 0.25,
            momentum: 0.125,
            decay: 1.0,
            optimizer: OptimizerName::RmsProp,
            mixed_precision: Some(MixedPrecision::Half),
        };
        assert_eq!(given.definitions(), expected);
    }

    #[test]
    fn export_needs_a_file_and_takes_the_same_options() {
        let Command::Export(export) = parse("lenet export --graph-def g.pbtxt --text --optimizer sgd").unwrap() else {
            panic!("not an export");
        };
        assert_eq!((export.graph_def.as_path(), export.text), (Path::new("g.pbtxt"), true));
        assert_eq!(export.options.definitions().optimizer, OptimizerName::Sgd);
        assert_eq!(
            parse("lenet export").unwrap_err().kind(),
            ErrorKind::MissingRequiredArgument
        );
    }

    #[test]
    fn checkpoints_are_saved_where_a_folder_is_named() {
        assert_eq!(train("lenet").checkpoints(), None);
        let checkpoints = |line: &str| train(line).checkpoints().unwrap();
        let expected = CheckpointOptions {
            folder: "runs".into(),
            save_every: 1_000,
            resume: false,
        };
        assert_eq!(checkpoints("lenet --checkpoint-dir runs"), expected);
        let expected = CheckpointOptions {
            save_every: 10,
            resume: true,
            ..expected
        };
        assert_eq!(
            checkpoints("lenet train --checkpoint-dir runs --save-every 10 --resume"),
            expected
        );
        for line in ["lenet --resume", "lenet train --save-every 5"] {
            assert_eq!(
                parse(line).unwrap_err().kind(),
                ErrorKind::MissingRequiredArgument,
                "{line}"
            );
        }
        assert!(parse("lenet export --graph-def g --checkpoint-dir runs").is_err());
    }

    #[test]
    fn eval_needs_a_checkpoint() {
        let Command::Eval(eval) = parse("lenet eval --checkpoint a/b --dataset fashion --threads 2").unwrap() else {
            panic!("not an eval");
        };
        assert_eq!(
            (eval.checkpoint.as_path(), eval.logits, eval.threads),
            (Path::new("a/b"), 0, Some(2))
        );
        assert_eq!(eval.source.dataset, DatasetName::Fashion);
        assert!(parse("lenet eval").is_err());
        assert!(parse("lenet eval --checkpoint a --iter 3").is_err());
    }

    #[test]
    fn a_value_out_of_range_is_named_with_its_option() {
        let cases = [
            ("--mini-batch-size", "0"),
            ("--mini-batch-size", "-5"),
            ("--update-after-iter", "0"),
            ("--threads", "0"),
            ("--c1", "0"),
            ("--d2", "many"),
            ("--f1", "5x0"),
            ("--f2", "3x3x3"),
            ("--dropout-probability", "0"),
            ("--dropout-probability", "1.01"),
            ("--dropout-probability", "nan"),
            ("--learning-rate", "NaN"),
            ("--learning-rate", "-0.1"),
            ("--learning-rate", "inf"),
            ("--momentum", "2"),
            ("--decay", "-1"),
            ("--l1-coeff", "-1"),
            ("--weight-decay-coeff", "nan"),
            ("--checkpoint-dir runs --save-every", "0"),
            ("--seed", "9223372036854775808"),
            ("--dataset", "cifar"),
            ("--mixed-precision", "fp16"),
        ];
        for (option, value) in cases {
            let error = parse(&format!("lenet {option} {value}")).unwrap_err();
            assert!(
                matches!(error.kind(), ErrorKind::ValueValidation | ErrorKind::InvalidValue),
                "{error}"
            );
            let message = error.to_string();
            let option = option.split(' ').next_back().unwrap();
            assert!(message.contains(option) && message.contains(value), "{message}");
        }
    }

    #[test]
    fn an_unknown_optimizer_lists_the_choices() {
        let message = parse("lenet --optimizer adagrad").unwrap_err().to_string();
        assert!(message.contains("[possible values: adam, rmsprop, sgd]"), "{message}");
    }

    #[test]
    fn filters_that_leave_no_pixels_are_refused() {
        let message = parse("lenet --f1 25 --f2 3").unwrap_err().to_string();
        assert!(
            message.contains("f2 (height) must be 1 to 1 with this f1, got 3"),
            "{message}"
        );
    }

    #[test]
    fn the_data_folder_is_the_current_one_or_the_repositorys() {
        assert_eq!(
            options("lenet --data-dir elsewhere").source.data_dir(),
            Path::new("elsewhere")
        );
        let folder = tempfile::tempdir().unwrap();
        let in_repository = DatasetName::Mnist.default_dir(folder.path());
        assert!(in_repository.join(crate::dataset::FILES[0]).is_file());
        assert!(
            DatasetName::Fashion
                .default_dir(folder.path())
                .ends_with("data/fashion")
        );
        let here = folder.path().join("data");
        std::fs::create_dir(&here).unwrap();
        assert_eq!(DatasetName::Mnist.default_dir(folder.path()), here);
    }
}
