//! Arguments of the programs that reproduce published results, and how these programs end.

use std::{env, error::Error, fmt::Display, num::ParseIntError, process::ExitCode};

/// Exit code of a program that was called in a way that it does not know.
const USAGE_EXIT: u8 = 2;

/// The arguments that are left.
#[derive(Debug)]
pub struct Arguments<I>(I);

/// Arguments that mean nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// Nothing stands behind an option that needs something.
    #[error("{option} needs a value")]
    NoValue {
        /// The option.
        option: String,
    },
    /// What stands behind an option is no number.
    #[error("{option} needs a whole number: {source}")]
    Number {
        /// The option.
        option: String,
        /// Why.
        source: ParseIntError,
    },
    /// There is no such option.
    #[error("unknown option {0}")]
    Unknown(String),
    /// Something must be said.
    #[error("{0} is needed")]
    Missing(&'static str),
}

impl<I: Iterator<Item = String>> Arguments<I> {
    /// These arguments, without the program's name.
    pub const fn new(arguments: I) -> Self {
        Self(arguments)
    }

    /// The next option.
    pub fn option(&mut self) -> Option<String> {
        self.0.next()
    }

    /// The text behind an option.
    ///
    /// # Errors
    ///
    /// [`UsageError::NoValue`].
    pub fn text(&mut self, option: &str) -> Result<String, UsageError> {
        self.0.next().ok_or_else(|| UsageError::NoValue { option: option.to_owned() })
    }

    /// The whole number behind an option.
    ///
    /// # Errors
    ///
    /// [`UsageError`] if nothing is there, or no number.
    pub fn number(&mut self, option: &str) -> Result<u64, UsageError> {
        let text = self.text(option)?;
        text.parse().map_err(|source| UsageError::Number { option: option.to_owned(), source })
    }
}

/// Runs a program: `parse` makes options of its arguments, none if only help is wanted, and `run` does what they ask for.
/// Exit code 2 for wrong usage, 1 for an error, which is told with its causes.
pub fn main<O, E: Error + 'static>(
    name: &str,
    usage: impl Display,
    parse: impl FnOnce(Arguments<std::iter::Skip<env::Args>>) -> Result<Option<O>, UsageError>,
    run: impl FnOnce(&O) -> Result<ExitCode, E>,
) -> ExitCode {
    match parse(Arguments::new(env::args().skip(1))) {
        Ok(Some(options)) => run(&options).unwrap_or_else(|error| {
            let causes = std::iter::successors(Some(&error as &(dyn Error + 'static)), |&error| error.source());
            let messages: Vec<String> = causes.map(ToString::to_string).collect();
            eprintln!("{name}: {}", messages.join(": "));
            ExitCode::FAILURE
        }),
        Ok(None) => {
            println!("{usage}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{name}: {error}\n{usage}");
            ExitCode::from(USAGE_EXIT)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_have_values() {
        let mut arguments =
            Arguments::new(["--seeds", "7", "--plan", "a.toml", "--seeds"].map(str::to_owned).into_iter());
        assert_eq!(arguments.option().as_deref(), Some("--seeds"));
        assert_eq!(arguments.number("--seeds"), Ok(7));
        assert_eq!(arguments.option().as_deref(), Some("--plan"));
        assert_eq!(arguments.text("--plan").as_deref(), Ok("a.toml"));
        assert_eq!(arguments.option().as_deref(), Some("--seeds"));
        assert_eq!(arguments.number("--seeds"), Err(UsageError::NoValue { option: "--seeds".to_owned() }));
        assert_eq!(arguments.option(), None);
        let mut words = Arguments::new(["many".to_owned()].into_iter());
        assert!(matches!(words.number("--seeds"), Err(UsageError::Number { .. })));
    }
}
