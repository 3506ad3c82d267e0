// Pins the cert-manager whose CRDs the end-to-end tests install; nothing is built from it.
module est-issuer.io/e2e

go 1.26.0

require github.com/cert-manager/cert-manager v1.21.2
