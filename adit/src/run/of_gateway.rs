//! The way from the command line to the verbs of a gateway.

use std::{io, path::PathBuf};

use tokio::runtime::Runtime;

use super::{Context, agents, ca, demo, gateway, peers, route, sessions, token};
use crate::{
    admin::{Answer, Request},
    args::{AgentsVerb, GatewayVerb, OfGateway, RouteVerb, SessionsVerb, TokenVerb},
    config::{ConfigError, GatewayConfig, Loaded, Role, admin_socket},
    exit::CommandFailure,
};

pub(super) fn dispatch(ctx: &Context<'_>, verb: &OfGateway) -> Result<(), CommandFailure> {
    match verb {
        OfGateway::Demo(args) => demo::demo(ctx, args),
        OfGateway::Gateway(GatewayVerb::Init(args)) => gateway::init(ctx, args),
        OfGateway::Gateway(GatewayVerb::Run(_)) => gateway::run(ctx),
        OfGateway::Gateway(GatewayVerb::Reload(json)) => gateway::reload(ctx, *json),
        OfGateway::Gateway(GatewayVerb::Status(json)) => gateway::status(ctx, *json),
        OfGateway::Token(TokenVerb::Create(args)) => token::create(ctx, args),
        OfGateway::Token(TokenVerb::List(json)) => token::list(ctx, *json),
        OfGateway::Token(TokenVerb::Revoke(args)) => token::revoke(ctx, args),
        OfGateway::Agents(AgentsVerb::List(json)) => agents::list(ctx, *json),
        OfGateway::Agents(AgentsVerb::Show(args)) => agents::show(ctx, args),
        OfGateway::Agents(AgentsVerb::Delete(args)) => agents::delete(ctx, args),
        OfGateway::Agents(AgentsVerb::Drain(args)) => agents::drain(ctx, args),
        OfGateway::Sessions(SessionsVerb::List(json)) => sessions::list(ctx, *json),
        OfGateway::Sessions(SessionsVerb::Show(args)) => sessions::show(ctx, args),
        OfGateway::Sessions(SessionsVerb::Kill(args)) => sessions::kill(ctx, args),
        OfGateway::Route(RouteVerb::Explain(args)) => route::explain(ctx, args),
        OfGateway::Ca(verb) => ca::ca(ctx, verb),
        OfGateway::Peers(verb) => peers::peers(ctx, verb),
    }
}

impl Context<'_> {
    /// The configuration of a gateway that is to run.
    pub(crate) fn gateway_config(&self) -> Result<Loaded<GatewayConfig>, ConfigError> {
        GatewayConfig::load_to_run(
            self.file(Role::Gateway),
            &self.cli.overrides(),
            &self.around,
        )
    }

    /// The gateway's configuration, which may lack what a gateway cannot run without.
    pub(crate) fn gateway_draft(&self) -> Result<Loaded<GatewayConfig>, ConfigError> {
        GatewayConfig::load(
            self.file(Role::Gateway),
            &self.cli.overrides(),
            &self.around,
        )
    }

    /// Asks the running gateway.
    pub(crate) fn ask_gateway(&self, request: &Request) -> Result<Answer, CommandFailure> {
        self.ask(admin_socket(&self.gateway_state_dir()?), request)
    }

    /// Where the gateway keeps its state, whether or not it could run with its configuration.
    pub(crate) fn gateway_state_dir(&self) -> Result<PathBuf, ConfigError> {
        let file = self.file(Role::Gateway);
        GatewayConfig::state_dir(file, &self.cli.overrides(), &self.around)
    }
}

/// The runtime of a gateway: one thread; more are the driver's to start.
pub(super) fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}
