package io.estissuer.interop;

import java.io.IOException;
import java.io.StringReader;
import java.io.StringWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyPair;
import java.security.KeyPairGenerator;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.cert.CertificateFactory;
import java.security.cert.X509Certificate;
import java.security.spec.ECGenParameterSpec;
import java.util.ArrayList;
import java.util.List;
import javax.net.ssl.KeyManager;
import javax.net.ssl.KeyManagerFactory;
import org.bouncycastle.asn1.pkcs.PrivateKeyInfo;
import org.bouncycastle.openssl.PEMParser;
import org.bouncycastle.openssl.jcajce.JcaPEMKeyConverter;
import org.bouncycastle.openssl.jcajce.JcaPEMWriter;
import org.bouncycastle.openssl.jcajce.JcaPKCS8Generator;

/** A private key and its certificate chain, leaf first, in a folder as key.pem and chain.pem. */
record Identity(PrivateKey key, List<X509Certificate> chain) {
  static Identity load(Path folder) throws IOException, GeneralSecurityException {
    return new Identity(privateKey(folder.resolve("key.pem")), certificates(folder.resolve("chain.pem")));
  }

  static PrivateKey privateKey(Path file) throws IOException {
    try (PEMParser parser = new PEMParser(new StringReader(Files.readString(file)))) {
      return new JcaPEMKeyConverter().getPrivateKey((PrivateKeyInfo) parser.readObject());
    }
  }

  void save(Path folder) throws IOException {
    Files.createDirectories(folder);
    try (StringWriter text = new StringWriter()) {
      JcaPEMWriter pem = new JcaPEMWriter(text);
      pem.writeObject(new JcaPKCS8Generator(key, null));
      pem.close();
      Files.writeString(folder.resolve("key.pem"), text.toString());
    }
    try (StringWriter text = new StringWriter()) {
      JcaPEMWriter pem = new JcaPEMWriter(text);
      for (X509Certificate certificate : chain) {
        pem.writeObject(certificate);
      }
      pem.close();
      Files.writeString(folder.resolve("chain.pem"), text.toString());
    }
  }

  KeyManager[] keyManagers() throws IOException, GeneralSecurityException {
    KeyStore store = KeyStore.getInstance("PKCS12");
    store.load(null, null);
    store.setKeyEntry("client", key, new char[0], chain.toArray(X509Certificate[]::new));
    KeyManagerFactory factory = KeyManagerFactory.getInstance("PKIX", "BCJSSE");
    factory.init(store, new char[0]);
    return factory.getKeyManagers();
  }

  /** A key of "EC-P256", "EC-P384", "RSA-2048" or "Ed25519". */
  static KeyPair generate(String algorithm) throws GeneralSecurityException {
    KeyPairGenerator generator;
    switch (algorithm) {
      case "EC-P256", "EC-P384" -> {
        generator = KeyPairGenerator.getInstance("EC", "BC");
        generator.initialize(new ECGenParameterSpec(algorithm.equals("EC-P256") ? "P-256" : "P-384"));
      }
      case "RSA-2048" -> {
        generator = KeyPairGenerator.getInstance("RSA", "BC");
        generator.initialize(2048);
      }
      default -> generator = KeyPairGenerator.getInstance(algorithm, "BC");
    }
    return generator.generateKeyPair();
  }

  /** The algorithm to sign with by such a key. */
  static String signatureAlgorithm(PrivateKey key) {
    return switch (key.getAlgorithm()) {
      case "EC", "ECDSA" -> "SHA256withECDSA";
      case "RSA" -> "SHA256withRSA";
      default -> key.getAlgorithm();
    };
  }

  static List<X509Certificate> certificates(Path file) throws IOException, GeneralSecurityException {
    List<X509Certificate> found = new ArrayList<>();
    try (var input = Files.newInputStream(file)) {
      CertificateFactory.getInstance("X.509", "BC").generateCertificates(input).forEach(each -> found.add((X509Certificate) each));
    }
    return found;
  }
}
