package io.estissuer.interop;

import java.io.IOException;
import java.security.GeneralSecurityException;
import java.security.KeyPair;
import java.security.PrivateKey;
import java.security.cert.X509Certificate;
import java.util.List;
import javax.security.auth.x500.X500Principal;
import org.bouncycastle.asn1.pkcs.PKCSObjectIdentifiers;
import org.bouncycastle.asn1.x509.Extension;
import org.bouncycastle.asn1.x509.ExtensionsGenerator;
import org.bouncycastle.asn1.x509.GeneralName;
import org.bouncycastle.asn1.x509.GeneralNames;
import org.bouncycastle.cert.X509CertificateHolder;
import org.bouncycastle.cert.jcajce.JcaX509CertificateConverter;
import org.bouncycastle.cert.jcajce.JcaX509ExtensionUtils;
import org.bouncycastle.est.CACertsResponse;
import org.bouncycastle.est.ESTAuth;
import org.bouncycastle.est.ESTService;
import org.bouncycastle.est.EnrollmentResponse;
import org.bouncycastle.operator.ContentSigner;
import org.bouncycastle.operator.jcajce.JcaContentSignerBuilder;
import org.bouncycastle.pkcs.PKCS10CertificationRequestBuilder;
import org.bouncycastle.pkcs.jcajce.JcaPKCS10CertificationRequestBuilder;

/** cacerts, simpleenroll and simplereenroll. */
final class Enrolment {
  private Enrolment() {}

  static void caCerts(Options options, Output output) throws Exception {
    CACertsResponse answer = Server.service(options).getCACerts();
    for (X509CertificateHolder certificate : ESTService.storeToArray(answer.getCertificateStore())) {
      output.put("certificate", certificate.getEncoded());
    }
    output.put("trusted", answer.isTrusted());
  }

  /**
   * --subject NAME [--dns NAME] [--key-algorithm ALGORITHM] [--reenroll yes] [--bind yes] [--save FOLDER]: --bind yes links the CSR to its
   * connection; --save keeps key and certificate, followed by --anchors' certificates, as an identity.
   */
  static void enroll(Options options, Output output) throws Exception {
    KeyPair pair = Identity.generate(options.get("key-algorithm", "EC-P256"));
    PKCS10CertificationRequestBuilder request = request(options, pair);
    ContentSigner signer = signer(pair.getPrivate());
    ESTService service = Server.service(options);
    ESTAuth credentials = Server.credentials(options);
    boolean again = options.has("reenroll");
    EnrollmentResponse answer =
        options.has("bind")
            ? service.simpleEnrollPoP(again, request, signer, credentials)
            : service.simpleEnroll(again, request.build(signer), credentials);
    if (!answer.isCompleted()) {
      output.put("status", 202);
      output.put("not_before", answer.getNotBefore());
      return;
    }
    X509CertificateHolder issued = issued(answer, output);
    if (options.has("save")) {
      X509Certificate certificate = new JcaX509CertificateConverter().setProvider("BC").getCertificate(issued);
      new Identity(pair.getPrivate(), List.of(certificate)).save(options.path("save"));
    }
  }

  static PKCS10CertificationRequestBuilder request(Options options, KeyPair pair) throws IOException, GeneralSecurityException {
    PKCS10CertificationRequestBuilder request =
        new JcaPKCS10CertificationRequestBuilder(new X500Principal(options.get("subject")), pair.getPublic());
    ExtensionsGenerator extensions = new ExtensionsGenerator();
    if (options.has("dns")) {
      GeneralNames names = new GeneralNames(new GeneralName(GeneralName.dNSName, options.get("dns")));
      extensions.addExtension(Extension.subjectAlternativeName, false, names);
    }
    if (options.has("secret")) { // by which a Full PKI Request names this key as its signer (RFC 5272 section 4.2)
      extensions.addExtension(Extension.subjectKeyIdentifier, false, new JcaX509ExtensionUtils().createSubjectKeyIdentifier(pair.getPublic()));
    }
    if (!extensions.isEmpty()) {
      request.addAttribute(PKCSObjectIdentifiers.pkcs_9_at_extensionRequest, extensions.generate());
    }
    return request;
  }

  static ContentSigner signer(PrivateKey key) throws Exception {
    return new JcaContentSignerBuilder(Identity.signatureAlgorithm(key)).setProvider("BC").build(key);
  }

  static X509CertificateHolder issued(EnrollmentResponse answer, Output output) throws IOException, GeneralSecurityException {
    X509CertificateHolder[] certificates = ESTService.storeToArray(answer.getStore());
    output.put("status", 200);
    for (X509CertificateHolder certificate : certificates) {
      output.put("certificate", certificate.getEncoded());
    }
    return certificates[0];
  }
}
