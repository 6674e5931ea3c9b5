//! `edge inspect`: shows the content of a ticket, without its key.

use clap::Args;
use edge_user::seal::ticket::AnyTicket;
use serde_json::json;

use crate::error::CommandError;
use crate::print::{outln, print_json};
use crate::{progress, ticket};

/// Show the content of a ticket, without the key.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The ticket, private or public: @FILE, - for standard input, or the ticket itself.
    ticket: String,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), CommandError> {
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
        "yes (keep this ticket secret)"
    } else {
        "no"
    };
    outln!("key           {has_key}")?;
    outln!(
        "size          {} bytes ({})",
        shape.size_bytes(),
        progress::human(shape.size_bytes())
    )?;
    outln!("chunks        {}", shape.data_chunks())?;
    outln!(
        "index chunks  {} ({})",
        shape.index_chunks(),
        progress::count(shape.depth() as u64, "level")
    )?;
    outln!("root          {root}")?;
    outln!("public ticket {}", public.encode())?;
    Ok(())
}
