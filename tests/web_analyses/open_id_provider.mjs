// A provider of OpenID Connect for tests: node open_id_provider.mjs <folder of node_modules> <port> <redirect URI> <client secret>
// It refuses redirect URIs that are not registered, and requests without PKCE. Any name logs in; "nobody" has no verified address.
import {createRequire} from "node:module";
import {pathToFileURL} from "node:url";

const [folder, port, redirectUri, secret] = process.argv.slice(2);
const {default: Provider} = await import(pathToFileURL(createRequire(`${folder}/`).resolve("oidc-provider")).href);
const issuer = `http://localhost:${port}`;
const provider = new Provider(issuer, {
  clients: [{client_id: "lake", client_secret: secret, redirect_uris: [redirectUri], response_types: ["code"], grant_types: ["authorization_code"]}],
  pkce: {required: () => true},
  conformIdTokenClaims: false,
  claims: {openid: ["sub"], email: ["email", "email_verified"], profile: ["groups"]},
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => ({sub: id, email: `${id}@example.org`, email_verified: id !== "nobody", groups: id === "root" ? ["lake-admins", "perf"] : ["perf"]}),
  }),
  cookies: {keys: ["only for tests"]},
  features: {devInteractions: {enabled: true}},
});
provider.listen(Number(port), "127.0.0.1", () => console.log("listening"));
