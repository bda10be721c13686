"""Asks the mocks for tokens through the clouds' own libraries, and prints what they gave: the proof that a mock speaks as
its cloud does. Needs google-auth, requests and azure-identity."""

import json
import os
import sys

import google.auth
import google.auth.transport.requests
import requests
from azure.core.pipeline.transport import RequestsTransport
from azure.identity import (
    CertificateCredential,
    ClientAssertionCredential,
    ClientSecretCredential,
    ManagedIdentityCredential,
)

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
FIXED = ["https://iamcredentials.googleapis.com", "https://oauth2.googleapis.com"]
AZURE_SCOPE = "https://cognitiveservices.azure.com/.default"


class ToLoopback(RequestsTransport):
    """The mock speaks no TLS, and Microsoft's library speaks nothing else."""

    def send(self, request, **kwargs):
        request.url = request.url.replace("https://", "http://", 1)
        return super().send(request, **kwargs)


class ToMock(requests.adapters.HTTPAdapter):
    """For a person and for impersonation, Google's library knows one address only, whatever the file says."""

    def __init__(self, url):
        super().__init__()
        self.url = url

    def send(self, request, **kwargs):
        for fixed in FIXED:
            request.url = request.url.replace(fixed, self.url, 1)
        return super().send(request, **kwargs)


def google_token(file):
    if file:
        os.environ["GOOGLE_APPLICATION_CREDENTIALS"] = file
    else:
        os.environ.pop("GOOGLE_APPLICATION_CREDENTIALS", None)
    credentials, _ = google.auth.default(scopes=[SCOPE])
    session = requests.Session()
    for fixed in FIXED:
        session.mount(fixed, ToMock("http://" + asked["metadata_host"]))
    credentials.refresh(google.auth.transport.requests.Request(session))
    return credentials.token


def azure_tokens(asked):
    tenant, client = asked["tenant"], asked["client"]
    known = {
        "authority": asked["url"].removeprefix("http://"),
        "disable_instance_discovery": True,
        "transport": ToLoopback(),
    }
    with open(asked["federated"]) as file:
        assertion = file.read()
    credentials = {
        "secret": ClientSecretCredential(tenant, client, asked["secret"], **known),
        "certificate": CertificateCredential(tenant, client, asked["certificate"], **known),
        "federated": ClientAssertionCredential(tenant, client, lambda: assertion, **known),
    }
    tokens = {name: credential.get_token(AZURE_SCOPE).token for name, credential in credentials.items()}
    os.environ["AZURE_POD_IDENTITY_AUTHORITY_HOST"] = asked["url"]
    tokens["instance"] = ManagedIdentityCredential().get_token(AZURE_SCOPE).token
    os.environ["IDENTITY_ENDPOINT"] = asked["url"] + "/msi/token"
    os.environ["IDENTITY_HEADER"] = asked["identity_header"]
    tokens["app_service"] = ManagedIdentityCredential().get_token(AZURE_SCOPE).token
    return tokens


asked = json.load(sys.stdin)
os.environ["GCE_METADATA_HOST"] = os.environ["GCE_METADATA_IP"] = asked["metadata_host"]
os.environ["GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES"] = "1"
# Or it asks Google for the number of the project.
os.environ["GOOGLE_CLOUD_PROJECT"] = "project"
files = asked["google"]
google_tokens = {name: google_token(file) for name, file in files.items()}
json.dump({"google": google_tokens, "azure": azure_tokens(asked["azure"])}, sys.stdout)
