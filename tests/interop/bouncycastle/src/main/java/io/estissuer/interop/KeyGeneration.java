package io.estissuer.interop;

import java.security.KeyPair;
import java.security.PrivateKey;
import java.util.Collection;
import java.util.HexFormat;
import javax.crypto.spec.SecretKeySpec;
import org.bouncycastle.asn1.ASN1EncodableVector;
import org.bouncycastle.asn1.ASN1ObjectIdentifier;
import org.bouncycastle.asn1.ASN1Sequence;
import org.bouncycastle.asn1.DEROctetString;
import org.bouncycastle.asn1.DERSequence;
import org.bouncycastle.asn1.cms.ContentInfo;
import org.bouncycastle.asn1.cms.SignedData;
import org.bouncycastle.asn1.nist.NISTObjectIdentifiers;
import org.bouncycastle.asn1.pkcs.PKCSObjectIdentifiers;
import org.bouncycastle.asn1.x509.AlgorithmIdentifier;
import org.bouncycastle.cert.X509CertificateHolder;
import org.bouncycastle.cms.CMSAuthEnvelopedData;
import org.bouncycastle.cms.CMSEnvelopedData;
import org.bouncycastle.cms.CMSSignedData;
import org.bouncycastle.cms.CMSTypedStream;
import org.bouncycastle.cms.Recipient;
import org.bouncycastle.cms.RecipientInformation;
import org.bouncycastle.cms.RecipientInformationStore;
import org.bouncycastle.cms.SignerInformation;
import org.bouncycastle.cms.jcajce.JcaSimpleSignerInfoVerifierBuilder;
import org.bouncycastle.cms.jcajce.JceKEKAuthEnvelopedRecipient;
import org.bouncycastle.cms.jcajce.JceKEKEnvelopedRecipient;
import org.bouncycastle.cms.jcajce.JceKeyAgreeAuthEnvelopedRecipient;
import org.bouncycastle.cms.jcajce.JceKeyAgreeEnvelopedRecipient;
import org.bouncycastle.cms.jcajce.JceKeyTransAuthEnvelopedRecipient;
import org.bouncycastle.cms.jcajce.JceKeyTransEnvelopedRecipient;
import org.bouncycastle.est.ESTService;
import org.bouncycastle.est.EnrollmentResponse;
import org.bouncycastle.pkcs.PKCS10CertificationRequestBuilder;
import org.bouncycastle.util.Store;

/** serverkeygen: the private key in plain by Bouncy Castle's EST client, encrypted by its CMS (RFC 7030 section 4.4). */
final class KeyGeneration {
  private static final ASN1ObjectIdentifier DECRYPT_KEY_ID = new ASN1ObjectIdentifier("1.2.840.113549.1.9.16.2.37");
  private static final ASN1ObjectIdentifier ASYMMETRIC_DECRYPT_KEY_ID = new ASN1ObjectIdentifier("1.2.840.113549.1.9.16.2.54");
  private static final ASN1ObjectIdentifier KEY_PACKAGE = new ASN1ObjectIdentifier("2.16.840.1.101.2.1.2.78.5");

  private KeyGeneration() {}

  static void plain(Options options, Output output) throws Exception {
    KeyPair ignored = Identity.generate("EC-P256");
    ESTService service = Server.service(options);
    EnrollmentResponse answer =
        service.simpleEnrollWithServersideCreation(
            Enrolment.request(options, ignored).build(Enrolment.signer(ignored.getPrivate())), Server.credentials(options));
    Enrolment.issued(answer, output);
    output.put("key", answer.getPrivateKeyInfo().getEncoded());
  }

  /** --decrypt-key-id HEX and --wrapping-key HEX, or --asymmetric-decrypt-key-id HEX and --wrapping-key-file FILE; --gcm prefers AES-GCM. */
  static void encrypted(Options options, Output output) throws Exception {
    KeyPair ignored = Identity.generate("EC-P256");
    PKCS10CertificationRequestBuilder request = Enrolment.request(options, ignored);
    boolean symmetric = options.has("decrypt-key-id");
    byte[] identifier = HexFormat.of().parseHex(options.get(symmetric ? "decrypt-key-id" : "asymmetric-decrypt-key-id"));
    request.addAttribute(symmetric ? DECRYPT_KEY_ID : ASYMMETRIC_DECRYPT_KEY_ID, new DEROctetString(identifier));
    request.addAttribute(PKCSObjectIdentifiers.pkcs_9_at_smimeCapabilities, capabilities(options.has("gcm")));
    byte[] csr = request.build(Enrolment.signer(ignored.getPrivate())).getEncoded();
    Post answer = Post.send(options, "serverkeygen", "application/pkcs10", csr);
    output.put("status", answer.status());
    if (answer.status() != 200) {
      output.put("message", new String(answer.body()));
      return;
    }
    for (Post.Part part : answer.parts()) {
      output.put("type", part.contentType());
      if (part.contentType().contains("certs-only")) {
        for (X509CertificateHolder certificate : new CMSSignedData(part.der()).getCertificates().getMatches(null)) {
          output.put("certificate", certificate.getEncoded());
        }
      } else {
        output.put("key", key(part.der(), options, output));
      }
    }
  }

  private static DERSequence capabilities(boolean gcm) {
    ASN1EncodableVector algorithms = new ASN1EncodableVector();
    if (gcm) {
      algorithms.add(new AlgorithmIdentifier(NISTObjectIdentifiers.id_aes256_GCM));
    }
    algorithms.add(new AlgorithmIdentifier(NISTObjectIdentifiers.id_aes256_CBC));
    algorithms.add(new AlgorithmIdentifier(NISTObjectIdentifiers.id_aes256_wrap));
    algorithms.add(new AlgorithmIdentifier(PKCSObjectIdentifiers.id_RSAES_OAEP));
    algorithms.add(
        new AlgorithmIdentifier(
            new ASN1ObjectIdentifier("1.3.132.1.11.1"), new AlgorithmIdentifier(NISTObjectIdentifiers.id_aes256_wrap)));
    return new DERSequence(algorithms);
  }

  private static Recipient recipient(Options options) throws Exception {
    boolean gcm = options.has("gcm");
    if (options.has("wrapping-key")) {
      SecretKeySpec key = new SecretKeySpec(HexFormat.of().parseHex(options.get("wrapping-key")), "AES");
      return gcm ? new JceKEKAuthEnvelopedRecipient(key).setProvider("BC") : new JceKEKEnvelopedRecipient(key).setProvider("BC");
    }
    PrivateKey key = Identity.privateKey(options.path("wrapping-key-file"));
    if (key.getAlgorithm().equals("RSA")) {
      return gcm ? new JceKeyTransAuthEnvelopedRecipient(key).setProvider("BC") : new JceKeyTransEnvelopedRecipient(key).setProvider("BC");
    }
    return gcm ? new JceKeyAgreeAuthEnvelopedRecipient(key).setProvider("BC") : new JceKeyAgreeEnvelopedRecipient(key).setProvider("BC");
  }

  /** EnvelopedData or AuthEnvelopedData of SignedData of AsymmetricKeyPackage; the signature is verified by the certificate in it. */
  private static byte[] key(byte[] envelope, Options options, Output output) throws Exception {
    Recipient recipient = recipient(options);
    RecipientInformationStore recipients =
        options.has("gcm") ? new CMSAuthEnvelopedData(envelope).getRecipientInfos() : new CMSEnvelopedData(envelope).getRecipientInfos();
    RecipientInformation information = recipients.iterator().next();
    CMSTypedStream content = information.getContentStream(recipient);
    output.put("content_type", content.getContentType().getId());
    SignedData signed = SignedData.getInstance(content.getContentStream().readAllBytes());
    CMSSignedData data = new CMSSignedData(new ContentInfo(PKCSObjectIdentifiers.signedData, signed));
    if (!data.getSignedContentTypeOID().equals(KEY_PACKAGE.getId())) {
      throw new IllegalStateException("signed content is " + data.getSignedContentTypeOID());
    }
    output.put("signer", verified(data).getEncoded());
    ASN1Sequence keys = ASN1Sequence.getInstance((byte[]) data.getSignedContent().getContent());
    return keys.getObjectAt(0).toASN1Primitive().getEncoded("DER");
  }

  static X509CertificateHolder verified(CMSSignedData data) throws Exception {
    Store<X509CertificateHolder> certificates = data.getCertificates();
    SignerInformation signer = data.getSignerInfos().iterator().next();
    @SuppressWarnings("unchecked")
    Collection<X509CertificateHolder> matching = certificates.getMatches(signer.getSID());
    X509CertificateHolder certificate = matching.iterator().next();
    if (!signer.verify(new JcaSimpleSignerInfoVerifierBuilder().setProvider("BC").build(certificate))) {
      throw new IllegalStateException("the signature is wrong");
    }
    return certificate;
  }
}
