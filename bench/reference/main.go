// reference is the least that an EST server does, in Go and its standard library: TLS 1.2/1.3 with a verified client
// certificate, one PKCS#10 checked and signed, one certs-only answer. No policy, no ledger, no limits, no log: est-issuer's
// speed is stated as a ratio to it, both measured in one run on one machine. It is fit for nothing else.
package main

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"flag"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"time"
)

// The fixed parts of a certs-only answer: RFC 5652 section 5.1 with neither content nor signer.
type (
	contentInfo struct {
		ContentType asn1.ObjectIdentifier
		Content     signedData `asn1:"explicit,tag:0"`
	}
	signedData struct {
		Version          int
		DigestAlgorithms []pkix.AlgorithmIdentifier `asn1:"set"`
		ContentInfo      struct{ ContentType asn1.ObjectIdentifier }
		Certificates     asn1.RawValue
		SignerInfos      []asn1.RawValue `asn1:"set"`
	}
)

var (
	idData       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	idSignedData = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	serialLimit  = new(big.Int).Lsh(big.NewInt(1), 128)
)

func certsOnly(certificateDER []byte) ([]byte, error) {
	message := contentInfo{ContentType: idSignedData, Content: signedData{Version: 1}}
	message.Content.ContentInfo.ContentType = idData
	message.Content.Certificates = asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: certificateDER}
	return asn1.Marshal(message)
}

type authority struct {
	certificate *x509.Certificate
	key         any
}

// enroll answers one simpleenroll body.
func (ca authority) enroll(body []byte) ([]byte, error) {
	body = bytes.Join(bytes.Fields(body), nil)
	csrDER := make([]byte, base64.StdEncoding.DecodedLen(len(body)))
	n, err := base64.StdEncoding.Decode(csrDER, body)
	if err != nil {
		return nil, err
	}
	csr, err := x509.ParseCertificateRequest(csrDER[:n])
	if err != nil {
		return nil, err
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, serialLimit)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	leaf := &x509.Certificate{
		SerialNumber: serial, Subject: csr.Subject, DNSNames: csr.DNSNames,
		NotBefore: now, NotAfter: now.Add(90 * 24 * time.Hour), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca.certificate, csr.PublicKey, ca.key)
	if err != nil {
		return nil, err
	}
	return certsOnly(der)
}

func (ca authority) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<16))
	if err == nil {
		body, err = ca.enroll(body)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	answer := append(base64.StdEncoding.AppendEncode(nil, body), '\n')
	w.Header().Set("Content-Type", "application/pkcs7-mime; smime-type=certs-only")
	w.Header().Set("Content-Length", fmt.Sprint(len(answer)))
	w.Write(answer)
}

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address; the bound one is printed")
	serverCert, serverKey := flag.String("cert", "", "server certificate, PEM"), flag.String("key", "", "its key, PEM")
	caCert, caKey := flag.String("ca", "", "CA certificate, PEM"), flag.String("ca-key", "", "its key, PEM")
	flag.Parse()
	ca, err := tls.LoadX509KeyPair(*caCert, *caKey)
	if err != nil {
		log.Fatal("the CA: ", err)
	}
	server, err := tls.LoadX509KeyPair(*serverCert, *serverKey)
	if err != nil {
		log.Fatal("the server certificate: ", err)
	}
	clients := x509.NewCertPool()
	clients.AddCert(ca.Leaf)
	mux := http.NewServeMux()
	mux.Handle("POST /.well-known/est/simpleenroll", authority{ca.Leaf, ca.PrivateKey})
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr())
	log.Fatal(http.Serve(tls.NewListener(listener, &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{server},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients, NextProtos: []string{"http/1.1"},
	}), mux))
}
