package io.estissuer.interop;

import java.security.Security;
import org.bouncycastle.est.ESTException;
import org.bouncycastle.jce.provider.BouncyCastleProvider;
import org.bouncycastle.jsse.provider.BouncyCastleJsseProvider;

/**
 * {@code java io.estissuer.interop.Main COMMAND [--OPTION VALUE]...}: one EST operation as Bouncy Castle does it.
 *
 * <p>Prints lines of {@code name=value}, octets in base64. Ends with 0 when the server answered, refusals included ({@code status=} is
 * then there), with 1 when it did not.
 */
public final class Main {
  private Main() {}

  public static void main(String[] arguments) {
    Security.addProvider(new BouncyCastleProvider());
    Security.addProvider(new BouncyCastleJsseProvider());
    Output output = new Output();
    try {
      run(new Options(arguments), output);
    } catch (ESTException refused) {
      if (refused.getStatusCode() == 0) {
        refused.printStackTrace();
        System.exit(1);
      }
      output.put("status", refused.getStatusCode());
      output.put("message", refused.getMessage());
    } catch (Exception failure) {
      failure.printStackTrace();
      System.exit(1);
    }
    output.print();
  }

  private static void run(Options options, Output output) throws Exception {
    switch (options.command()) {
      case "cacerts" -> Enrolment.caCerts(options, output);
      case "enroll" -> Enrolment.enroll(options, output);
      case "csrattrs" -> Attributes.attributes(options, output);
      case "fullcmc" -> FullCmc.enroll(options, output);
      case "serverkeygen" -> KeyGeneration.plain(options, output);
      case "serverkeygen-encrypted" -> KeyGeneration.encrypted(options, output);
      default -> throw new IllegalArgumentException("no such command: " + options.command());
    }
  }
}
