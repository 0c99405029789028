"""Microsoft's azure-identity against the emulator, with nothing but the variables that the emulator prints.

Arguments: a PEM file with key and certificate that is registered for the application, and one that is not.
"""

import base64
import json
import os
import sys
import tempfile
from urllib.parse import urlsplit

from azure.core.exceptions import ClientAuthenticationError
from azure.identity import (
    CertificateCredential,
    ClientSecretCredential,
    ManagedIdentityCredential,
    WorkloadIdentityCredential,
)

SCOPE = "https://redis.azure.com/.default"
CERTIFICATE, OTHER_CERTIFICATE = sys.argv[1:]
CLIENT_ID = os.environ["AZURE_CLIENT_ID"]
APPLICATION = {"tenant_id": os.environ["AZURE_TENANT_ID"], "client_id": CLIENT_ID}


def claims(credential):
    token = credential.get_token(SCOPE).token
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def managed(**identity):
    return claims(ManagedIdentityCredential(**identity))


def application(kind, *arguments, **keywords):
    """Make a credential that does not ask login.microsoftonline.com about the authority."""
    return kind(*arguments, **APPLICATION, **keywords, disable_instance_discovery=True)


def expect(actual, oid, what):
    assert actual["aud"] == "https://redis.azure.com", (what, actual["aud"])
    assert actual["oid"] == oid, (what, actual["oid"], oid)
    print("token", what)


def refused(credential, code, what):
    try:
        credential.get_token(SCOPE)
    except ClientAuthenticationError as error:
        assert f"AADSTS{code}:" in str(error), (what, str(error))
        print("refused", what)
    else:
        raise AssertionError(f"{what}: a token was given")


def managed_identities(where):
    """Get tokens for one identity by each of its three names, and for the one without a name."""
    user = managed(client_id=CLIENT_ID)
    assert user["appid"] == CLIENT_ID, user["appid"]
    oid, resource = user["oid"], user["xms_mirid"]
    expect(user, oid, f"{where}: client id")
    expect(managed(identity_config={"object_id": oid}), oid, f"{where}: object id")
    expect(managed(identity_config={"resource_id": resource}), oid, f"{where}: resource id")
    system = managed()
    assert system["oid"] != oid and system["appid"] != CLIENT_ID
    expect(system, system["oid"], f"{where}: system-assigned")
    try:
        managed(client_id="00000000-0000-0000-0000-000000000000")
    except ClientAuthenticationError:
        print("refused", f"{where}: unknown client id")
    else:
        raise AssertionError("an unknown identity was given a token")
    return oid


def applications(oid):
    secret = os.environ["AZURE_CLIENT_SECRET"]
    expect(claims(application(ClientSecretCredential, client_secret=secret)), oid, "secret")
    refused(application(ClientSecretCredential, client_secret="wrong"), 7000215, "wrong secret")

    for chain in (False, True):
        credential = application(
            CertificateCredential, certificate_path=CERTIFICATE, send_certificate_chain=chain
        )
        expect(claims(credential), oid, f"certificate, chain {chain}")
    wrong = application(CertificateCredential, certificate_path=OTHER_CERTIFICATE)
    refused(wrong, 700027, "wrong certificate")

    credential = WorkloadIdentityCredential(disable_instance_discovery=True)
    expect(claims(credential), oid, "workload identity")
    with open(os.environ["AZURE_FEDERATED_TOKEN_FILE"], encoding="utf-8") as file:
        header, _, signature = file.read().split(".")
    other = {"iss": "https://other", "sub": "other", "aud": "other", "exp": 4102444800}
    payload = base64.urlsafe_b64encode(json.dumps(other).encode()).decode().rstrip("=")
    for assertion, code in (
        (f"{header}.{payload}.{signature}", 700211),
        ("not.an.assertion", 50027),
    ):
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(assertion)
            file.flush()
            credential = WorkloadIdentityCredential(
                token_file_path=file.name, disable_instance_discovery=True
            )
            refused(credential, code, "wrong assertion")


oid = managed_identities("App Service")
applications(oid)

# The same on a virtual machine: its metadata service is the other path at the same address.
endpoint = urlsplit(os.environ.pop("IDENTITY_ENDPOINT"))
os.environ.pop("IDENTITY_HEADER")
os.environ.pop("AZURE_FEDERATED_TOKEN_FILE")
os.environ["AZURE_POD_IDENTITY_AUTHORITY_HOST"] = f"{endpoint.scheme}://{endpoint.netloc}"
assert managed_identities("metadata service") == oid
