package io.estissuer.interop;

import java.nio.charset.StandardCharsets;
import java.security.KeyPair;
import java.security.MessageDigest;
import java.security.SecureRandom;
import java.security.cert.X509Certificate;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;
import javax.security.auth.x500.X500Principal;
import org.bouncycastle.asn1.ASN1Encodable;
import org.bouncycastle.asn1.ASN1Encoding;
import org.bouncycastle.asn1.ASN1Integer;
import org.bouncycastle.asn1.ASN1ObjectIdentifier;
import org.bouncycastle.asn1.ASN1OctetString;
import org.bouncycastle.asn1.DERNull;
import org.bouncycastle.asn1.DEROctetString;
import org.bouncycastle.asn1.DERSequence;
import org.bouncycastle.asn1.DERSet;
import org.bouncycastle.asn1.DERUTF8String;
import org.bouncycastle.asn1.cmc.BodyPartID;
import org.bouncycastle.asn1.cmc.CMCObjectIdentifiers;
import org.bouncycastle.asn1.cmc.CMCStatusInfoV2;
import org.bouncycastle.asn1.cmc.CertificationRequest;
import org.bouncycastle.asn1.cmc.IdentityProofV2;
import org.bouncycastle.asn1.cmc.OtherMsg;
import org.bouncycastle.asn1.cmc.PKIData;
import org.bouncycastle.asn1.cmc.PKIResponse;
import org.bouncycastle.asn1.cmc.PopLinkWitnessV2;
import org.bouncycastle.asn1.cmc.TaggedAttribute;
import org.bouncycastle.asn1.cmc.TaggedCertificationRequest;
import org.bouncycastle.asn1.cmc.TaggedContentInfo;
import org.bouncycastle.asn1.cmc.TaggedRequest;
import org.bouncycastle.asn1.nist.NISTObjectIdentifiers;
import org.bouncycastle.asn1.pkcs.PKCSObjectIdentifiers;
import org.bouncycastle.asn1.x509.AlgorithmIdentifier;
import org.bouncycastle.asn1.x509.GeneralName;
import org.bouncycastle.asn1.x509.GeneralNames;
import org.bouncycastle.cert.X509CertificateHolder;
import org.bouncycastle.cert.crmf.jcajce.JcaCertificateRequestMessageBuilder;
import org.bouncycastle.cert.jcajce.JcaCertStore;
import org.bouncycastle.cert.jcajce.JcaX509ExtensionUtils;
import org.bouncycastle.cms.CMSProcessableByteArray;
import org.bouncycastle.cms.CMSSignedData;
import org.bouncycastle.cms.CMSSignedDataGenerator;
import org.bouncycastle.cms.SignerInfoGenerator;
import org.bouncycastle.cms.jcajce.JcaSimpleSignerInfoGeneratorBuilder;
import org.bouncycastle.pkcs.PKCS10CertificationRequestBuilder;

/** fullcmc: a Full PKI Request with one certification request, made of Bouncy Castle's ASN.1 and CMS (RFC 5272). */
final class FullCmc {
  private static final SecureRandom RANDOM = new SecureRandom();
  private static final AlgorithmIdentifier SHA256 = new AlgorithmIdentifier(NISTObjectIdentifiers.id_sha256);
  private static final AlgorithmIdentifier HMAC_SHA256 =
      new AlgorithmIdentifier(PKCSObjectIdentifiers.id_hmacWithSHA256, DERNull.INSTANCE);

  private final Options options;
  private final KeyPair pair;
  private final byte[] senderNonce = octets(16);
  private final byte[] linkRandom = octets(64);
  private final List<TaggedAttribute> controls = new ArrayList<>();

  private FullCmc(Options options) throws Exception {
    this.options = options;
    this.pair = Identity.generate(options.get("key-algorithm", "EC-P256"));
  }

  /**
   * Signed by --signer FOLDER, or by the new key itself with --identification NAME and --secret TEXT. --crmf yes: CRMF in place of
   * PKCS#10. --control OID: a control that nobody knows.
   */
  static void enroll(Options options, Output output) throws Exception {
    FullCmc exchange = new FullCmc(options);
    byte[] message = exchange.signed(exchange.body()).getEncoded(ASN1Encoding.DER); // its default is BER
    Post answer = Post.send(options, "fullcmc", "application/pkcs7-mime; smime-type=CMC-request", message);
    output.put("status", answer.status());
    output.put("type", answer.contentType());
    exchange.read(new CMSSignedData(answer.der()), output);
    output.put("public_key", exchange.pair.getPublic().getEncoded());
  }

  private byte[] body() throws Exception {
    DERSequence requests = new DERSequence(options.has("crmf") ? crmf() : pkcs10());
    add(CMCObjectIdentifiers.id_cmc_senderNonce, new DEROctetString(senderNonce));
    add(CMCObjectIdentifiers.id_cmc_transactionId, new ASN1Integer(new java.math.BigInteger(64, RANDOM)));
    if (options.has("secret")) {
      add(CMCObjectIdentifiers.id_cmc_identification, new DERUTF8String(options.get("identification")));
      add(CMCObjectIdentifiers.id_cmc_popLinkRandom, new DEROctetString(linkRandom));
      // RFC 5272 section 6.2.3: the identification follows the secret before it is hashed
      byte[] witness = hmac(options.get("secret") + options.get("identification"), requests.getEncoded(ASN1Encoding.DER));
      add(CMCObjectIdentifiers.id_cmc_identityProofV2, new IdentityProofV2(SHA256, HMAC_SHA256, witness));
    }
    if (options.has("control")) {
      add(new ASN1ObjectIdentifier(options.get("control")), DERNull.INSTANCE);
    }
    return new PKIData(
            controls.toArray(TaggedAttribute[]::new),
            new TaggedRequest[] {TaggedRequest.getInstance(requests.getObjectAt(0))},
            new TaggedContentInfo[0],
            new OtherMsg[0])
        .getEncoded(ASN1Encoding.DER);
  }

  private TaggedRequest pkcs10() throws Exception {
    PKCS10CertificationRequestBuilder request = Enrolment.request(options, pair);
    if (options.has("secret")) {
      byte[] witness = hmac(options.get("secret"), linkRandom);
      request.addAttribute(CMCObjectIdentifiers.id_cmc_popLinkWitnessV2, new PopLinkWitnessV2(SHA256, HMAC_SHA256, witness));
    }
    byte[] csr = request.build(Enrolment.signer(pair.getPrivate())).getEncoded();
    return new TaggedRequest(new TaggedCertificationRequest(new BodyPartID(1), CertificationRequest.getInstance(csr)));
  }

  private TaggedRequest crmf() throws Exception {
    JcaCertificateRequestMessageBuilder request = new JcaCertificateRequestMessageBuilder(java.math.BigInteger.ONE);
    request.setSubject(new X500Principal(options.get("subject"))).setPublicKey(pair.getPublic());
    if (options.has("dns")) {
      GeneralNames names = new GeneralNames(new GeneralName(GeneralName.dNSName, options.get("dns")));
      request.addExtension(org.bouncycastle.asn1.x509.Extension.subjectAlternativeName, false, names);
    }
    request.setProofOfPossessionSigningKeySigner(Enrolment.signer(pair.getPrivate()));
    return new TaggedRequest(request.build().toASN1Structure());
  }

  private CMSSignedData signed(byte[] body) throws Exception {
    CMSSignedDataGenerator generator = new CMSSignedDataGenerator();
    JcaSimpleSignerInfoGeneratorBuilder builder = new JcaSimpleSignerInfoGeneratorBuilder().setProvider("BC");
    SignerInfoGenerator signer;
    if (options.has("signer")) {
      Identity identity = Identity.load(options.path("signer"));
      X509Certificate certificate = identity.chain().get(0);
      signer = builder.build(Identity.signatureAlgorithm(identity.key()), identity.key(), certificate);
      generator.addCertificates(new JcaCertStore(List.of(certificate)));
    } else {
      byte[] identifier = new JcaX509ExtensionUtils().createSubjectKeyIdentifier(pair.getPublic()).getKeyIdentifier();
      signer = builder.build(Identity.signatureAlgorithm(pair.getPrivate()), pair.getPrivate(), identifier);
    }
    generator.addSignerInfoGenerator(signer);
    return generator.generate(new CMSProcessableByteArray(CMCObjectIdentifiers.id_cct_PKIData, body), true);
  }

  private void read(CMSSignedData answer, Output output) throws Exception {
    for (X509CertificateHolder certificate : answer.getCertificates().getMatches(null)) {
      output.put("certificate", certificate.getEncoded());
    }
    if (answer.getSignerInfos().size() > 0) {
      output.put("signer", KeyGeneration.verified(answer).getEncoded());
    }
    if (!CMCObjectIdentifiers.id_cct_PKIResponse.getId().equals(answer.getSignedContentTypeOID())) {
      return;
    }
    PKIResponse response = PKIResponse.getInstance((byte[]) answer.getSignedContent().getContent());
    for (ASN1Encodable each : response.getControlSequence()) {
      TaggedAttribute control = TaggedAttribute.getInstance(each);
      ASN1Encodable value = control.getAttrValues().getObjectAt(0);
      if (control.getAttrType().equals(CMCObjectIdentifiers.id_cmc_statusInfoV2)) {
        CMCStatusInfoV2 status = CMCStatusInfoV2.getInstance(value);
        output.put("cmc_status", status.getCMCStatus().toASN1Primitive());
        output.put("bodies", Arrays.stream(status.getBodyList()).map(part -> String.valueOf(part.getID())).toList());
        if (status.hasOtherInfo()) {
          output.put("fail_info", status.getOtherStatusInfo().toASN1Primitive());
          output.put("text", status.getStatusStringUTF8());
        }
      } else if (control.getAttrType().equals(CMCObjectIdentifiers.id_cmc_recipientNonce)) {
        output.put("nonce_returned", Arrays.equals(ASN1OctetString.getInstance(value).getOctets(), senderNonce));
      }
    }
  }

  private void add(ASN1ObjectIdentifier type, ASN1Encodable value) {
    controls.add(new TaggedAttribute(new BodyPartID(2 + controls.size()), type, new DERSet(value)));
  }

  private static byte[] hmac(String secret, byte[] data) throws Exception {
    byte[] key = MessageDigest.getInstance("SHA-256").digest(secret.getBytes(StandardCharsets.UTF_8));
    Mac mac = Mac.getInstance("HmacSHA256");
    mac.init(new SecretKeySpec(key, "HmacSHA256"));
    return mac.doFinal(data);
  }

  private static byte[] octets(int count) {
    byte[] made = new byte[count];
    RANDOM.nextBytes(made);
    return made;
  }
}
