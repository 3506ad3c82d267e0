package io.estissuer.interop;

import org.bouncycastle.asn1.ASN1ObjectIdentifier;
import org.bouncycastle.est.CSRAttributesResponse;
import org.bouncycastle.est.CSRRequestResponse;

/** csrattrs: what the server wants of a CSR, as Bouncy Castle reads it. */
final class Attributes {
  private Attributes() {}

  static void attributes(Options options, Output output) throws Exception {
    CSRRequestResponse answer = Server.service(options).getCSRAttributes();
    if (!answer.hasAttributesResponse()) {
      output.put("status", 204);
      return;
    }
    CSRAttributesResponse wanted = answer.getAttributesResponse();
    output.put("status", 200);
    for (ASN1ObjectIdentifier each : wanted.getRequirements()) {
      output.put(wanted.isAttribute(each) ? "attribute" : "oid", each.getId());
    }
    output.put("der", wanted.getEncoded());
  }
}
