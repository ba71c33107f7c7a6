//! Reading a line word by word, for the host language of the lab.

use std::str::FromStr;

use anyhow::{Context, Result, bail};

/// The words of one line that are still to be read.
#[derive(Debug, Clone)]
pub struct Words<'a> {
    line: &'a str,
    rest: std::iter::Peekable<std::str::SplitWhitespace<'a>>,
}

impl<'a> Words<'a> {
    /// Starts at the first word.
    #[must_use]
    pub fn new(line: &'a str) -> Self {
        Self { line, rest: line.split_whitespace().peekable() }
    }

    /// The line, for messages.
    #[must_use]
    pub const fn line(&self) -> &'a str {
        self.line
    }

    /// The next word, if there is one.
    pub fn next_word(&mut self) -> Option<&'a str> {
        self.rest.next()
    }

    /// The next word, left where it is.
    pub fn peek(&mut self) -> Option<&'a str> {
        self.rest.peek().copied()
    }

    /// Takes the next word if it is this one.
    pub fn take(&mut self, word: &str) -> bool {
        self.rest.next_if(|next| *next == word).is_some()
    }

    /// The next word, which must be there.
    ///
    /// # Errors
    /// If the line ends.
    pub fn word(&mut self, what: &str) -> Result<&'a str> {
        self.rest.next().with_context(|| format!("`{}`: {what} is missing", self.line))
    }

    /// The next word as a value.
    ///
    /// # Errors
    /// If the line ends, or the word is no such value.
    pub fn value<T>(&mut self, what: &str) -> Result<T>
    where
        T: FromStr,
        T::Err: std::fmt::Display,
    {
        let word = self.word(what)?;
        word.parse()
            .map_err(|error| anyhow::anyhow!("`{}`: `{word}` is not {what}: {error}", self.line))
    }

    /// Two numbers as `A-B`, or one number that stands for both.
    ///
    /// # Errors
    /// If the word is neither.
    pub fn range<T: FromStr + Copy>(&mut self, what: &str) -> Result<(T, T)> {
        let word = self.word(what)?;
        let (low, high) = word.split_once('-').unwrap_or((word, word));
        match (low.parse(), high.parse()) {
            (Ok(low), Ok(high)) => Ok((low, high)),
            _ => bail!("`{}`: `{word}` is not {what}", self.line),
        }
    }

    /// Nothing may be left.
    ///
    /// # Errors
    /// With the word that is left.
    pub fn end(&mut self) -> Result<()> {
        match self.rest.next() {
            Some(word) => bail!("`{}`: `{word}` is not understood here", self.line),
            None => Ok(()),
        }
    }
}
