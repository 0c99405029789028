//! A command or a pipeline on its way to one node, and the reply to it.

use redis::{Cmd, Pipeline, RedisResult, ServerError, Value};

use super::super::node::connection::NodeConnection;

/// A request to one node.
#[derive(Clone, Copy)]
pub(super) enum Request<'a> {
    Command(&'a Cmd),
    /// A pipeline, and redis-rs' `offset` and `count` of the replies that its caller wants.
    Pipeline(&'a Pipeline, usize, usize),
}

pub(super) enum Reply {
    One(Value),
    Many(Vec<Value>),
}

impl Request<'_> {
    /// Sends the request, behind ASKING if the slot is being migrated to this node. ASKING and the request travel in one
    /// write: another caller's command must not come between.
    pub(super) async fn send(
        self,
        connection: &mut NodeConnection,
        asking: bool,
    ) -> RedisResult<Reply> {
        match self {
            Self::Command(command) if asking => {
                let mut pipeline = Pipeline::with_capacity(2);
                pipeline.cmd("ASKING").add_command(command.clone());
                let mut replies = connection.send_all(&pipeline, 0, 2).await?;
                Ok(Reply::One(replies.pop().unwrap_or(Value::Nil)))
            }
            Self::Command(command) => Ok(Reply::One(connection.send(command).await?)),
            Self::Pipeline(pipeline, offset, count) if asking => {
                let replies = send_asking(connection, pipeline, offset).await?;
                Ok(Reply::Many(replies.into_iter().take(count).collect()))
            }
            Self::Pipeline(pipeline, offset, count) => Ok(Reply::Many(
                connection.send_all(pipeline, offset, count).await?,
            )),
        }
    }

    /// Returns the error that answers the whole request. In a pipeline that is not a transaction each command has its own.
    pub(super) fn error(self, reply: &Reply) -> Option<&ServerError> {
        match (self, reply) {
            (_, Reply::One(Value::ServerError(error))) => Some(error),
            (Self::Pipeline(pipeline, ..), Reply::Many(values)) if pipeline.is_transaction() => {
                match &values[..] {
                    [Value::ServerError(error)] => Some(error),
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

/// Sends a transaction behind ASKING, which stays in force until EXEC. Other pipelines are never redirected as a whole.
async fn send_asking(
    connection: &mut NodeConnection,
    transaction: &Pipeline,
    offset: usize,
) -> RedisResult<Vec<Value>> {
    let mut pipeline = Pipeline::with_capacity(transaction.len() + 3);
    pipeline.cmd("ASKING").cmd("MULTI");
    for command in transaction.cmd_iter() {
        pipeline.add_command(command.clone());
    }
    pipeline.cmd("EXEC");
    let mut replies = connection.send_all(&pipeline, 0, pipeline.len()).await?;
    let wanted = replies.split_off(offset + 1);
    // Redis discards the transaction because of the first error among these; EXEC reports only that it was discarded.
    for reply in replies {
        reply.extract_error()?;
    }
    Ok(wanted)
}
