//! `edge inspect`: what a ticket says, without its key.

use clap::Args;
use edge_user::seal::ticket::AnyTicket;
use serde_json::json;

use crate::failed::Failed;
use crate::said::{print_json, say};
use crate::{progress, ticket};

/// Show what a ticket says about its object. Never shows the key.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The ticket, private or public: @FILE, - for standard input, or the ticket itself.
    ticket: String,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failed> {
    ticket::guard_memory();
    let (kind, public) = match AnyTicket::decode(&ticket::read(&arguments.ticket)?)? {
        AnyTicket::Private(ticket) => ("private", ticket.public().clone()),
        AnyTicket::Public(public) => ("public", public),
    };
    let shape = public.shape();
    let root = public.root().to_string();
    if arguments.json {
        return print_json(&json!({
            "kind": kind,
            "size": shape.size_bytes(),
            "chunks": shape.data_chunks(),
            "index_chunks": shape.index_chunks(),
            "depth": shape.depth(),
            "root": root,
            "public_ticket": public.encode(),
        }));
    }
    let has_key = if kind == "private" {
        "yes: keep this ticket secret"
    } else {
        "no"
    };
    say!("key           {has_key}")?;
    say!(
        "size          {} bytes ({})",
        shape.size_bytes(),
        progress::human(shape.size_bytes())
    )?;
    say!("chunks        {}", shape.data_chunks())?;
    say!(
        "index chunks  {} on {} levels",
        shape.index_chunks(),
        shape.depth()
    )?;
    say!("root          {root}")?;
    say!("public ticket {}", public.encode())?;
    Ok(())
}
