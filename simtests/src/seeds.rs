//! Seeds that once showed a defect.

use crate::run::Kind;

/// One line of `seeds/regressions.txt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Regression<'a> {
    /// The seed.
    pub seed: u64,
    /// The defect, in one sentence.
    pub why: &'a str,
}

/// The list that comes with the crate, of a world.
#[must_use]
pub fn regressions(world: Kind) -> &'static str {
    match world {
        Kind::Tunnel => include_str!("../seeds/regressions.txt"),
        Kind::Peers => include_str!("../seeds/regressions-peers.txt"),
    }
}

/// Reads a list: `SEED  WHY` in each line; empty lines and those that begin with `#` are passed over.
///
/// # Errors
/// Names the first line that is none, or whose seed stands there twice.
pub fn parse(text: &str) -> Result<Vec<Regression<'_>>, String> {
    let mut found: Vec<Regression<'_>> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let bad = |what| format!("line {}: {what}: {line}", index + 1);
        let (seed, why) = line
            .split_once(char::is_whitespace)
            .ok_or_else(|| bad("no reason"))?;
        let seed = seed.parse().map_err(|_| bad("no seed"))?;
        if found.iter().any(|known| known.seed == seed) {
            return Err(bad("there already"));
        }
        let why = why.trim_start();
        found.push(Regression { seed, why });
    }
    Ok(found)
}

/// The command that shows a seed again.
#[must_use]
pub fn replay_command(world: Kind, seed: u64) -> String {
    let world = match world {
        Kind::Tunnel => "",
        Kind::Peers => "--world peers ",
    };
    format!("cargo run --profile sim -p adit-simtests --bin replay -- {world}{seed} --trace")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_read_with_their_reasons() {
        let text = "# two\n\n2  the first sentence\n 18446744073709551615\ta second one \n";
        let wanted = [(2, "the first sentence"), (u64::MAX, "a second one")];
        assert_eq!(
            parse(text),
            Ok(wanted.map(|(seed, why)| Regression { seed, why }).into())
        );
    }

    #[test]
    fn bad_lines_are_named() {
        for (text, wanted) in [
            ("# a\n7\n", "line 2: no reason: 7"),
            ("x  why\n", "line 1: no seed: x  why"),
            ("-1  why\n", "line 1: no seed: -1  why"),
            ("7  why\n7  again\n", "line 2: there already: 7  again"),
        ] {
            assert_eq!(parse(text), Err(wanted.to_owned()));
        }
    }

    #[test]
    fn the_lists_of_the_crate_are_well_formed() {
        assert!(!parse(regressions(Kind::Tunnel)).unwrap().is_empty());
        assert!(!parse(regressions(Kind::Peers)).unwrap().is_empty());
    }
}
