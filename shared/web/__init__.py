"""HTTP, as endpoints see it: `from shared.web import Endpoint, Problem, Reply, lambda_handler`."""

from starlette.requests import Request

from shared.web.aws_lambda import lambda_handler
from shared.web.endpoint import Endpoint
from shared.web.problem import Problem
from shared.web.reply import Reply
from shared.web.sessions import Admin, SignedIn, User

__all__ = ["Admin", "Endpoint", "Problem", "Reply", "Request", "SignedIn", "User", "lambda_handler"]
