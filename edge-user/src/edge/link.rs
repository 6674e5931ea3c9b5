//! Looks after the interface, which others can take down, rename or remove while it is served.

use std::fmt;
use std::io;

use crate::network::Network;

/// The interface, by the number that stays its own when it is renamed.
#[derive(Debug)]
pub(super) struct Link {
    index: u32,
    network: Network,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct State {
    name: String,
    pub(super) up: bool,
}

/// What is worth a line in the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum News {
    Down(String),
    Up(String),
    Renamed { from: String, to: String },
}

impl Link {
    pub(super) const fn new(index: u32, network: Network) -> Self {
        Self { index, network }
    }

    /// What it is like now; nothing when it is gone.
    pub(super) fn state(&self) -> io::Result<Option<State>> {
        let found = self.network.interface_by_index(self.index)?;
        Ok(found.map(|interface| State {
            name: interface.name,
            up: interface.up,
        }))
    }
}

impl State {
    /// Before anybody has looked: what the configuration expects.
    pub(super) fn expected(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            up: true,
        }
    }

    /// What became of it since.
    pub(super) fn news(&self, now: &Self) -> Vec<News> {
        let mut news = Vec::new();
        if now.name != self.name {
            let (from, to) = (self.name.clone(), now.name.clone());
            news.push(News::Renamed { from, to });
        }
        match (self.up, now.up) {
            (true, false) => news.push(News::Down(now.name.clone())),
            (false, true) => news.push(News::Up(now.name.clone())),
            (true, true) | (false, false) => {}
        }
        news
    }
}

impl fmt::Display for News {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Down(name) => write!(
                out,
                "the interface {name} is down, so nobody is served; with its link went its IPv6 \
                 addresses, unless it is told to keep them"
            ),
            Self::Up(name) => write!(out, "the interface {name} is up again"),
            Self::Renamed { from, to } => write!(
                out,
                "the interface {from} is now called {to}; it is served on, but the next start \
                 will look for {from}"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(name: &str, up: bool) -> State {
        State {
            name: name.to_owned(),
            up,
        }
    }

    #[test]
    fn each_change_is_told_once() {
        let told = |from: State, to: State| from.news(&to);
        assert_eq!(told(State::expected("a0"), state("a0", true)), []);
        assert_eq!(told(state("a0", false), state("a0", false)), []);
        assert_eq!(
            told(State::expected("a0"), state("a0", false)),
            [News::Down("a0".to_owned())]
        );
        let (from, to) = ("a0".to_owned(), "b0".to_owned());
        assert_eq!(
            told(state("a0", false), state("b0", true)),
            [
                News::Renamed {
                    from,
                    to: to.clone()
                },
                News::Up(to)
            ]
        );
    }

    #[test]
    fn an_interface_is_found_by_its_number_and_one_that_is_gone_is_not() {
        // Loopback is the first of every namespace.
        let look = |index| Link::new(index, Network::open().unwrap()).state().unwrap();
        assert_eq!(look(1).unwrap().name, "lo");
        assert_eq!(look(0x7fff_ff00), None);
    }
}
